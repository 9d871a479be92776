# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The agent's own checks (in the sandbox), rules about its source, and the built file."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.tree import Tree
from tools.pipeline.guest import agent
from tools.pipeline.sandbox import failure, sandbox
from tools.pipeline.tasks.project import Project

SCRIPT = Path(__file__).with_name("run-checks.sh")

LARGEST_AGENT = 1_500_000
"""Bytes; the issue's budget."""

PT_INTERP = 3
"""ELF specification, "Program Header": the path of a dynamic loader."""


def run_checks(crate: Path, scratch: Path, tree: Tree) -> str:
    build = scratch / "build"
    build.mkdir()
    command = sandbox.Command(
        argv=("/bin/sh", "/inputs/run-checks.sh"),
        tree=tree.path,
        mounts=(
            sandbox.Mount(host=crate, inside="/src"),
            sandbox.Mount(host=SCRIPT, inside="/inputs/run-checks.sh"),
            sandbox.Mount(host=build, inside="/build", writable=True),
        ),
    )
    log = scratch / "log"
    outcome = sandbox.run(command, title="agent checks", log=log, replay=scratch / "replay.sh")
    failure.check(outcome, title="agent checks")
    return log.read_text()


@pytest.fixture(scope="module")
def crate(repository: Path) -> Path:
    return repository / "initramfs/agent"


@pytest.fixture(scope="module")
def sources(crate: Path) -> dict[str, str]:
    """Program text without comments, by path in src/; tests are no part of the program."""
    root = crate / "src"
    paths = [path.relative_to(root) for path in sorted(root.rglob("*.rs"))]
    found = {path.as_posix(): (root / path).read_text() for path in paths if path.parts[0] != "tests"}
    assert {"main.rs", "sys.rs", "event_loop.rs", "channel/frame.rs", "root/mounts.rs"} <= found.keys()
    return {name: re.sub(r"//[^\n]*", "", text) for name, text in found.items()}


@pytest.fixture(scope="module")
def built(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("agent") / "agent"
    project.engine.ensure(project.plan.agent)
    project.engine.copy(project.plan.agent, agent.NAME, target)
    target.chmod(0o755)
    return target


def test_format_lints_unit_tests_and_fuzzing(crate: Path, build_tree: Tree, tmp_path: Path) -> None:
    log = run_checks(crate, tmp_path, build_tree)
    summary = re.findall(r"test result: ok\. (\d+) passed; 0 failed; 0 ignored", log)
    assert summary
    assert sum(map(int, summary)) >= 50
    for fuzzed in ("frame_streams", "payloads", "archives", "pax_records", "command_lines"):
        assert f"tests::fuzz::mutated_{fuzzed} ... ok" in log


@pytest.mark.parametrize(
    ("flaw", "reason"),
    [
        ("fn  badly_formatted() {}\n", "Diff in"),
        ("\npub fn lint() -> bool {\n    return true;\n}\n", "needless_return"),
    ],
)
def test_checks_fail_on_a_flaw(crate: Path, build_tree: Tree, tmp_path: Path, flaw: str, reason: str) -> None:
    copy = tmp_path / "crate"
    shutil.copytree(crate, copy, ignore=shutil.ignore_patterns("target"))
    with (copy / "src/failure.rs").open("a") as file:
        file.write(flaw)
    with pytest.raises(BuildError):
        run_checks(copy, tmp_path, build_tree)
    assert reason in (tmp_path / "log").read_text()


def test_pivot_root_is_never_called(sources: dict[str, str]) -> None:
    assert not [name for name, text in sources.items() if re.search(r"(?<!SYS_)pivot_root", text)]
    assert [name for name, text in sources.items() if "SYS_pivot_root" in text] == ["process/filter.rs"]  # denies it
    assert "MS_MOVE" in sources["root/mounts.rs"]
    assert "chroot" in sources["root/mounts.rs"]


SYSTEM_CALLS = ["sys.rs", "sys/credentials.rs", "sys/network.rs", "sys/terminal.rs"]


def test_unsafe_stands_in_one_module_only(sources: dict[str, str], crate: Path) -> None:
    word = re.compile(r"\bunsafe\b(?!_)")
    assert sorted(name for name, text in sources.items() if word.search(text)) == SYSTEM_CALLS
    assert 'unsafe_code = "deny"' in (crate / "Cargo.toml").read_text()
    allowed = [name for name, text in sources.items() if "allow(unsafe_code)" in text]
    assert allowed == ["sys.rs"]


def test_every_unsafe_block_says_why(crate: Path) -> None:
    count = 0
    for name in SYSTEM_CALLS:
        lines = (crate / "src" / name).read_text().splitlines()
        for number in (number for number, line in enumerate(lines) if re.search(r"\bunsafe \{", line)):
            count += 1
            assert any("// SAFETY:" in line for line in lines[max(0, number - 4) : number]), lines[number]
    assert count > 20


def test_no_module_is_large(crate: Path) -> None:
    sizes = {p.name: len(p.read_text().splitlines()) for p in (crate / "src").rglob("*.rs")}
    assert max(sizes.values()) <= 450, sizes


def test_the_only_crate_is_libc(crate: Path) -> None:
    locked = (crate / "Cargo.lock").read_text()
    assert re.findall(r'^name = "(.*)"$', locked, re.MULTILINE) == ["agent", "libc"]


def test_built_agent_is_static_and_small(built: Path) -> None:
    data = built.read_bytes()
    assert len(data) <= LARGEST_AGENT
    assert data[:5] == b"\x7fELF\x02"
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    kinds = [struct.unpack_from("<I", data, table + size * index)[0] for index in range(count)]
    assert kinds
    assert PT_INTERP not in kinds


def test_built_agent_names_no_build_path(built: Path) -> None:
    data = built.read_bytes()
    assert b"sev_agent." in data
    for path in (b"/build/", b"/src/src", b"/usr/share/cargo"):
        assert path not in data, path


def test_agent_refuses_to_run_as_an_ordinary_process(built: Path) -> None:
    done = subprocess.run([built], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "agent: not PID 1; it is meant to be the first process of a guest\n"


def test_agent_refuses_to_be_pid_1_of_a_container(built: Path, build_tree: Tree) -> None:
    # fmt: off
    command = [
        "bwrap",
        "--unshare-all",
        "--as-pid-1",
        "--die-with-parent",
        "--ro-bind", str(build_tree.path), "/",
        "--proc", "/proc",
        "--dev", "/dev",
        "--tmpfs", "/tmp",
        "--ro-bind", str(built), "/tmp/agent",
        "/tmp/agent",
    ]
    # fmt: on
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not in the initial PID namespace" in done.stderr
