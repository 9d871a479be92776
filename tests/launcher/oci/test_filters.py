# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Filters of system calls: the kernel's numbers, OCI's rules as libseccomp takes them, profiles of engines."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.oci.oci_kit import ENGINES, captured, parsed, variants
from tools.launcher.base.errors import UserError
from tools.launcher.oci import config
from tools.launcher.oci.filters import profiles, seccomp
from tools.launcher.oci.filters.syscalls import ELSEWHERE, NUMBERS
from tools.launcher.oci.values import Table
from tools.pipeline.engine.tree import Tree
from tools.sev.workload.calls import Argument, Calls, Rule
from tools.sev.workload.engines import ENGINES as DEFAULTS

KILL = "SCMP_ACT_KILL_PROCESS"


def header(tree: Tree, machine: str) -> dict[str, int]:
    text = (tree.path / "usr/include/x86_64-linux-gnu/asm" / f"unistd_{machine}.h").read_text()
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", text)}


def test_numbers_are_those_of_the_kernels_headers(build_tree: Tree) -> None:
    assert header(build_tree, "64") == NUMBERS
    assert set(header(build_tree, "32")) - set(NUMBERS) <= ELSEWHERE


def read(**value: Any) -> Calls:
    return seccomp.read(Table({"defaultAction": "SCMP_ACT_ERRNO", **value}, where="seccomp"))


def rule(*names: str, action: str = "SCMP_ACT_ALLOW", **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def arg(index: int, op: str, value: int, two: int = 0) -> dict[str, Any]:
    return {"index": index, "op": op, "value": value, "valueTwo": two}


def test_actions_and_errors() -> None:
    assert read() == Calls(default=1)
    assert read(defaultErrnoRet=38).default == 38
    assert read(syscalls=[rule("read", action="SCMP_ACT_ERRNO", errnoRet=13)]).rules == (Rule(calls=(0,), action=13),)
    for name, action in (("KILL", "kill"), ("KILL_THREAD", "kill"), ("TRAP", "trap"), ("LOG", "log")):
        assert read(syscalls=[rule("read", action=f"SCMP_ACT_{name}")]).rules[0].action == action
    for name in ("TRACE", "NOTIFY", "x"):
        with pytest.raises(UserError, match=r"syscalls\[0\]\.action: is 'SCMP_ACT_.*', which the guest cannot do"):
            read(syscalls=[rule("read", action=f"SCMP_ACT_{name}")])


def test_arguments() -> None:
    found = read(syscalls=[rule("read", args=[arg(0, "SCMP_CMP_GE", 5), arg(2, "SCMP_CMP_MASKED_EQ", 0xF0, 0x10)])])
    conditions = (Argument(index=0, operator="ge", value=5), Argument(index=2, operator="eq", value=0x10, mask=0xF0))
    assert found.rules == (Rule(calls=(0,), action="allow", arguments=conditions),)
    # The same argument twice: one or the other.
    either = read(syscalls=[rule("read", args=[arg(0, "SCMP_CMP_EQ", 5), arg(0, "SCMP_CMP_EQ", 6)])])
    assert [one.arguments[0].value for one in either.rules] == [5, 6]
    with pytest.raises(UserError, match=r"op: is 'SCMP_CMP_X'"):
        read(syscalls=[rule("read", args=[arg(0, "SCMP_CMP_X", 5)])])
    with pytest.raises(UserError, match=r"index: is not between 0 and 5"):
        read(syscalls=[rule("read", args=[arg(6, "SCMP_CMP_EQ", 5)])])


def test_a_rule_without_arguments_outweighs_others_and_the_defaults_are_passed_over() -> None:
    found = read(syscalls=[rule("read", args=[arg(0, "SCMP_CMP_EQ", 5)]), rule("read", "write")])
    assert found.rules == (Rule(calls=(0, 1), action="allow"),)
    assert read(syscalls=[rule("read", action="SCMP_ACT_ERRNO", errnoRet=1)]).rules == ()


def test_names_that_nobody_knows() -> None:
    # Of another machine; and one that allows: both say nothing here.
    assert read(syscalls=[rule("read", "chown32", "newest_of_all")]).rules == (Rule(calls=(0,), action="allow"),)
    assert not read(defaultAction="SCMP_ACT_ALLOW", syscalls=[rule("chown32", action=KILL)]).rules
    # Passed over, it would be allowed.
    with pytest.raises(UserError, match=r"names: has 'mkdri'"):
        read(defaultAction="SCMP_ACT_ALLOW", syscalls=[rule("mkdri", action=KILL)])


def test_flags_and_machines() -> None:
    read(flags=["SECCOMP_FILTER_FLAG_LOG"], architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
    with pytest.raises(UserError, match=r"flags: has 'SECCOMP_FILTER_FLAG_NEW_LISTENER'"):
        read(flags=["SECCOMP_FILTER_FLAG_NEW_LISTENER"])
    with pytest.raises(UserError, match=r"architectures: has 'x86'"):
        read(architectures=["x86"])


def test_what_it_may_cost() -> None:
    whole = [rule(*list(NUMBERS), args=[arg(0, "SCMP_CMP_EQ", n)]) for n in range(2)]
    with pytest.raises(UserError, match=r"syscalls: costs \d+, more than the 4000"):
        read(syscalls=whole)
    read(syscalls=[rule(*list(NUMBERS)[:300], args=[arg(0, "SCMP_CMP_EQ", 0)])])


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engines_filter_for_any_capabilities(engine: str) -> None:
    name = f"{engine.partition('-')[0]}-{ENGINES[engine]}"
    assert profiles.of_engine(name, DEFAULTS[name].capabilities) == DEFAULTS[name].seccomp
    seen = set()
    for variant in variants(engine):
        if variant in {"unconfined", "ownseccomp"}:
            continue
        try:
            container = parsed(captured(engine, variant))
        except UserError:
            continue
        bounding = container.process.capabilities.bounding
        seen.add(bounding)
        assert profiles.of_engine(name, bounding) == container.seccomp, variant
    assert len(seen) > 6


def test_a_file_in_the_engines_form() -> None:
    value = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64"}],
        "syscalls": [
            {"name": "read", "action": "SCMP_ACT_ALLOW", "args": []},
            {**rule("mount"), "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {**rule("umount2"), "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {**rule("write"), "includes": {"arches": ["amd64"]}},
            {**rule("open"), "includes": {"arches": ["s390x"]}},
            {**rule("close"), "excludes": {"arches": ["amd64"]}},
        ],
    }

    def allowed(*capabilities: str) -> set[int]:
        found = profiles.of_file(value, capabilities, where="file")
        return {number for one in found.rules for number in one.calls}

    plain = {NUMBERS["read"], NUMBERS["write"]}
    assert allowed() == {*plain, NUMBERS["umount2"]}
    assert allowed("sys_admin") == {*plain, NUMBERS["mount"]}


def test_what_is_read_of_a_config_is_what_the_engine_wrote(tmp_path: Path) -> None:
    value = captured("docker-26.1")
    value["linux"]["seccomp"]["syscalls"].append(rule("reboot"))
    (tmp_path / "config.json").write_text(json.dumps(value))
    found = config.read(tmp_path).seccomp
    assert found is not None
    assert found != DEFAULTS["docker-2"].seccomp
    assert NUMBERS["reboot"] in {number for one in found.rules for number in one.calls}
