# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The lies by name."""

from tools.attack.vhost.disk import Disk
from tools.attack.vhost.lies import config, data, rings

LIES: dict[str, type[Disk]] = {"none": Disk, **config.LIES, **data.LIES, **rings.LIES}
