# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The command line as engines write it: options before and behind the command, `--name VALUE` or `--name=VALUE`.

Imports nothing: `state`, `kill` and `delete` are called often.
"""

from tools.launcher.base.errors import UserError, suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = "/run/sev-runtime"
GLOBAL = {
    "--root": True, "--log": True, "--log-format": True, "--config": True, "--systemd-cgroup": False,
    "--debug": False, "--help": False, "--version": False,
    "--rootless": True, "--cgroup-manager": True, "--log-level": True,
}  # fmt: skip
"""Options before the command: those of runc and crun that engines pass, and ours. True: a value follows."""


class Words:
    """What was given: values by option, and the rest in order."""

    def __init__(self) -> None:
        self.given: dict[str, str] = {}
        self.rest: list[str] = []

    def has(self, name: str) -> bool:
        """Whether the option was given."""
        return name in self.given

    def get(self, name: str) -> str | None:
        """The option's value; None when it was not given."""
        return self.given.get(name)


def parse(
    words: "Sequence[str]", known: "Mapping[str, bool]", *, short: "Mapping[str, str] | None" = None, stop: bool = False
) -> Words:
    """Parse; `short` are one-dash names. `stop`: the first word that is no option ends it, with all behind it."""
    found, left = Words(), list(words)
    while left:
        word = left.pop(0)
        if word == "--":
            found.rest += left
            break
        if not word.startswith("-") or word == "-":
            found.rest.append(word)
            if stop:
                found.rest += left
                break
            continue
        name, equals, value = word.partition("=")
        name = (short or {}).get(name, name)
        if name not in known:
            close = suggestion(name[:80], list(known))
            raise UserError(f"unknown option {word[:80]!r}{close}", hint="see sev-runtime --help")
        if known[name]:
            if not equals:
                if not left:
                    raise UserError(f"{name} needs a value")
                value = left.pop(0)
            found.given[name] = value
        elif not equals or value == "true":
            found.given[name] = ""
        elif value != "false":
            raise UserError(f"{name} takes no value")
    return found


def only_id(found: Words, command: str) -> str:
    """The one word that a command takes."""
    if len(found.rest) != 1:
        raise UserError(f"{command} takes one container id, {len(found.rest)} words were given")
    return found.rest[0]
