# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A filter of system calls that a workload document spells out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tools.sev.workload.fields import Fields

ACTIONS = ("allow", "kill", "log", "trap")
OPERATORS = ("eq", "ge", "gt", "le", "lt", "ne")
ERROR_MAX = 4095
CALL_MAX = 1023
RULES_MAX = 1024
ARGUMENTS_MAX = 6
COST_MAX = 4000
"""The kernel takes 4,096 instructions; a call costs 2, and 9 more for each argument."""
_WORD = r"[0-9a-f]{16}"


@dataclass(frozen=True, kw_only=True)
class Argument:
    """An argument's bits under `mask`, compared with `value`."""

    index: int
    operator: str
    value: int
    mask: int = (1 << 64) - 1

    def as_json(self) -> dict[str, Any]:
        """As the document has it."""
        return {
            "index": self.index, "mask": f"{self.mask:016x}", "operator": self.operator, "value": f"{self.value:016x}",
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What becomes of calls, by their numbers on x86-64, whose arguments are as it says: an action, or an errno."""

    calls: tuple[int, ...]
    action: str | int
    arguments: tuple[Argument, ...] = ()

    def value(self) -> dict[str, Any]:
        """As the document has it."""
        arguments = [argument.as_json() for argument in self.arguments]
        return {"action": self.action, "arguments": arguments, "calls": list(self.calls)}


@dataclass(frozen=True, kw_only=True)
class Calls:
    """The first rule that fits decides; where none does, `default`."""

    default: str | int
    rules: tuple[Rule, ...] = ()

    def value(self) -> dict[str, Any]:
        """As the document has it."""
        return {"default": self.default, "rules": [rule.value() for rule in self.rules]}


def gathered(default: str | int, rules: Iterable[Rule]) -> Calls:
    """What rules like an engine's come to, in one form: those with arguments as they come, then, by action, the others.

    As libseccomp takes them one after the other: what says the same as `default` is passed over; of two that hold
    whatever the arguments the first one counts, and beside it none with arguments does.
    """
    found = [rule for rule in rules if rule.action != default]
    plain: dict[int, str | int] = {}
    for rule in found:
        for call in rule.calls if not rule.arguments else ():
            plain.setdefault(call, rule.action)
    with_arguments: dict[tuple[tuple[Argument, ...], str | int], set[int]] = {}
    for rule in found:
        left = {call for call in rule.calls if rule.arguments and call not in plain}
        if left:
            with_arguments.setdefault((rule.arguments, rule.action), set()).update(left)
    some = [Rule(calls=tuple(sorted(c)), arguments=a, action=action) for (a, action), c in with_arguments.items()]
    actions = sorted(set(plain.values()), key=lambda action: (isinstance(action, int), action))
    others = [Rule(calls=tuple(sorted(c for c, a in plain.items() if a == one)), action=one) for one in actions]
    return Calls(default=default, rules=(*some, *others))


def read(fields: Fields) -> bool | Calls:
    """The key `seccomp` of a process: the agent's own filter, none (False), or one that is spelt out."""
    if not fields.is_table("seccomp"):
        return bool(fields.choice("seccomp", "default", "none") == "default")
    inner = fields.table("seccomp")
    found = Calls(default=_action(inner, "default"), rules=inner.items("rules", RULES_MAX, _rule))
    if sum(len(rule.calls) * (2 + 9 * len(rule.arguments)) for rule in found.rules) > COST_MAX:
        raise inner.fault("rules", "is more than the kernel takes")
    inner.close()
    return found


def _action(fields: Fields, key: str) -> str | int:
    if fields.is_number(key):
        return fields.integer(key, high=ERROR_MAX)
    found: str = fields.choice(key, *ACTIONS)
    return found


def _rule(item: Fields) -> Rule:
    fields = item.table("item")
    rule = Rule(
        calls=fields.rising("calls", RULES_MAX, lambda item: item.integer("item", high=CALL_MAX)),
        arguments=fields.items("arguments", ARGUMENTS_MAX, _argument),
        action=_action(fields, "action"),
    )
    fields.close()
    if not rule.calls:
        raise fields.fault("calls", "is empty")
    return rule


def _argument(item: Fields) -> Argument:
    fields = item.table("item")
    argument = Argument(
        index=fields.integer("index", high=ARGUMENTS_MAX - 1),
        mask=int(fields.text("mask", pattern=_WORD, says="64 bits in 16 lower-case hexadecimal digits"), 16),
        operator=fields.choice("operator", *OPERATORS),
        value=int(fields.text("value", pattern=_WORD, says="64 bits in 16 lower-case hexadecimal digits"), 16),
    )
    fields.close()
    return argument
