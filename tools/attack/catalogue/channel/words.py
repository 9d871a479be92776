# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Command lines that do not say, or say twice, who commands the guest; and a tar where dm-verity is demanded."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Weaker
from tools.attack.base.target import Target
from tools.attack.guests import agent
from tools.attack.guests.disks import plain

_UNBOUND = "sev_agent.unbound"
_DIGEST = f"sev_agent.workload={'0' * 64}"
_VERITY = f"sev_agent.verity={'0' * 64}:-:16"


def attempt(lab: Lab, target: Target, folder: Path, *, line: str) -> Outcome:
    """Command the guest as if it were unbound."""
    (folder / "disk").write_bytes(plain(lab).data)
    with agent.Guest(
        qemu=lab.qemu,
        kernel=target.kernel,
        initrd=target.initramfs,
        disk=folder / "disk",
        folder=folder,
        binding=line,
    ) as guest:
        guest.expect(agent.HELLO)
        guest.send(agent.HELLO, payload=agent.hello())
        guest.send(agent.CONTAINER, payload=agent.container())
        heard = guest.hear(lambda heard: heard[0].ready or bool(heard[0].error))[0]
    words = f"refused: {heard.error[1]}" if heard.error else "made the container" if heard.ready else "ended"
    return Outcome(succeeded=heard.ready, guest=words)


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, host, line in (
        ("both", "starts a guest that is bound and unbound", f"{_UNBOUND} {_DIGEST}"),
        ("both-otherwise", "starts a guest that is unbound twice", f"{_UNBOUND} {_UNBOUND}"),
        ("neither", "starts a guest that is neither bound nor unbound", ""),
        ("misspelt", "starts a guest with a misspelt word beside the right one", f"{_UNBOUND} sev_agent.verty=1"),
        ("verity-tar", "hands out a tar where the command line demands dm-verity", f"{_UNBOUND} {_VERITY}"),
    ):
        yield Attack(
            name=name,
            host=host,
            attempt=partial(attempt, line=line),
            control=Weaker(what="the same with the right word only", attempt=partial(attempt, line=_UNBOUND)),
            parts=frozenset({Part.AGENT}),
            short=name in {"both", "verity-tar"},
        )
