# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An OCI filter of system calls as the document's: names become numbers on x86-64, in one form.

As runc and libseccomp understand it: a rule that does what the default does is passed over, one without arguments
outweighs those with arguments, and conditions on the same argument twice are alternatives. Names of other machines are
passed over. So is a name that nobody knows, when its rule allows: what is not named is under the default.
"""

from tools.launcher.oci.filters.syscalls import ELSEWHERE, NUMBERS
from tools.launcher.oci.values import Table
from tools.sev.workload.calls import ARGUMENTS_MAX, COST_MAX, ERROR_MAX, RULES_MAX, Argument, Calls, Rule, gathered

_EPERM = 1
_ACTIONS = {
    "SCMP_ACT_ALLOW": "allow",
    # The document knows no end of one thread; that of all of them refuses no less.
    "SCMP_ACT_KILL": "kill",
    "SCMP_ACT_KILL_THREAD": "kill",
    "SCMP_ACT_KILL_PROCESS": "kill",
    "SCMP_ACT_TRAP": "trap",
    "SCMP_ACT_LOG": "log",
}
_ERRNO = "SCMP_ACT_ERRNO"
_OPERATORS = {
    "SCMP_CMP_NE": "ne",
    "SCMP_CMP_LT": "lt",
    "SCMP_CMP_LE": "le",
    "SCMP_CMP_EQ": "eq",
    "SCMP_CMP_GE": "ge",
    "SCMP_CMP_GT": "gt",
}
_MASKED = "SCMP_CMP_MASKED_EQ"
_ARCHITECTURES = "SCMP_ARCH_"
_FLAGS = ("SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW")
"""The filter is there before the program, so it is every thread's; SPEC_ALLOW would take a mitigation away."""
_U64 = (1 << 64) - 1
_HARMLESS = ("allow", "log")


def read(table: Table) -> Calls:
    """The filter; UserError for what a document cannot say."""
    for flag in table.words("flags"):
        if flag not in _FLAGS:
            raise table.fault("flags", f"has {flag[:60]!r}, which the guest cannot do")
    for name in table.words("architectures"):
        if not name.startswith(_ARCHITECTURES):
            raise table.fault("architectures", f"has {name[:60]!r}, which is no architecture")
    default = _action(table, "defaultAction", "defaultErrnoRet")
    rules: list[Rule] = []
    for entry in table.tables("syscalls"):
        action = _action(entry, "action", "errnoRet")
        calls = _numbers(entry, action)
        if calls:
            rules += [Rule(calls=calls, action=action, arguments=one) for one in _conditions(entry)]
    found = gathered(default, rules)
    if len(found.rules) > RULES_MAX or cost(found) > COST_MAX:
        raise table.fault("syscalls", f"costs {cost(found)}, more than the {COST_MAX} that fit into a kernel's filter")
    return found


def cost(calls: Calls) -> int:
    """What the filter takes of COST_MAX."""
    return sum(len(rule.calls) * (2 + 9 * len(rule.arguments)) for rule in calls.rules)


def _action(table: Table, key: str, errno: str) -> str | int:
    name = table.text(key)
    if name == _ERRNO:
        number = table.number(errno, high=ERROR_MAX)
        return _EPERM if number is None else number
    if name not in _ACTIONS:
        raise table.fault(
            key, f"is {name[:60]!r}, which the guest cannot do; known are {_ERRNO}, {', '.join(_ACTIONS)}"
        )
    return _ACTIONS[name]


def _numbers(entry: Table, action: str | int) -> tuple[int, ...]:
    found = set()
    for name in entry.words("names"):
        if name in NUMBERS:
            found.add(NUMBERS[name])
        elif name not in ELSEWHERE and action not in _HARMLESS:
            # Passed over, it would be allowed where it must not be.
            raise entry.fault("names", f"has {name[:60]!r}, which is no system call that is known here")
    return tuple(sorted(found))


def _conditions(entry: Table) -> list[tuple[Argument, ...]]:
    """Each set of arguments that fits: all of them at once, unless one argument is asked for twice."""
    arguments = tuple(_argument(one) for one in entry.tables("args"))
    if len({argument.index for argument in arguments}) < len(arguments):
        return [(argument,) for argument in arguments]
    return [arguments]


def _argument(table: Table) -> Argument:
    index = table.number("index", high=ARGUMENTS_MAX - 1) or 0
    value = table.number("value", high=_U64) or 0
    name = table.text("op")
    if name == _MASKED:
        return Argument(index=index, operator="eq", mask=value, value=table.number("valueTwo", high=_U64) or 0)
    if name not in _OPERATORS:
        known = ", ".join((*_OPERATORS, _MASKED))
        raise table.fault("op", f"is {name[:60]!r}, which is no comparison; known are {known}")
    return Argument(index=index, operator=_OPERATORS[name], value=value)
