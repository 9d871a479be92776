# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
from collections.abc import Iterator

from tests.attack.planted.boot.kinds import obeyed, refused
from tools.attack.base.model import Attack, Weaker


def attacks() -> Iterator[Attack]:
    yield Attack(name="held", host="is refused", attempt=refused, control=Weaker(what="without", attempt=obeyed))
