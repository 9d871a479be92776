# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Steps executed by a real service, each beside the same step here: what differs there must not matter."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.pipeline.engine.workshop import shell
from tests.pipeline.remote.reapi.conftest import Away, Start
from tests.pipeline.remote.reapi.kit import Casd
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine import graph
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.step import CheckoutFile, Literal, Reference, Step
from tools.pipeline.engine.store.origin import How
from tools.pipeline.engine.tree import Tree

Machine = Callable[..., Away]

INPUTS: dict[str, Reference] = {
    "/inputs/tool": CheckoutFile(path="tool"),
    "/inputs/deep/er/data": Literal(data=b"data\n"),
    "/src/empty": Literal(data=b""),
}
FOLDERS = "/ /build /out /inputs /inputs/deep /inputs/deep/er /src"

# What a step can see of where it runs, and how it may leave it behind: an output for each.
SEEN = {
    "ids": "id -u; id -g",
    "place": "pwd; umask",
    "environment": "unset MAKEFLAGS; env",
    "folders": f"stat -c '%n %a %u %g' {FOLDERS}",
    "inputs": "stat -c '%n %a %u %g %s' /inputs/tool /inputs/deep/er/data /src/empty",
    "makes": "mkdir d; touch f; stat -c '%n %a' d f",
    "personality": "cat /proc/self/personality",
    "standard-input": "cat; echo end",
    "rights": "while read -r a b; do case $a in CapEff:|NoNewPrivs:) echo $a $b;; esac; done </proc/self/status",
    "network": "while read -r name rest; do echo $name; done </proc/net/dev",
    "runs": "/inputs/tool",
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One for all: what it knows of other tests' steps is of other steps."""
    casd = Casd(folder=tmp_path_factory.mktemp("casd")).start()
    yield casd.address
    casd.kill()


def made(engine: Engine, step: Step, name: str = "out") -> bytes:
    target = engine.build / "copy"
    target.unlink(missing_ok=True)
    engine.copy(step, name, target)
    return target.read_bytes()


def prepared(away: Away) -> Away:
    root = away.workshop.root
    root.mkdir(parents=True, exist_ok=True)
    (root / "tool").write_text("#!/bin/sh\necho tool\n")
    (root / "tool").chmod(0o700)
    return away


def test_a_step_sees_the_same_and_leaves_the_same(machine: Machine, service: str) -> None:
    """Ids, folders, modes, umask, environment: each beside the same step in the sandbox here."""
    there, here = prepared(machine("there")), prepared(machine("here"))
    away, home = there.engine(service), here.workshop.engine()
    script = "\n".join(f"( {look} ) >/out/{name}" for name, look in SEEN.items())
    step = shell(script, inputs=INPUTS, outputs=tuple(SEEN))
    assert away.ensure(step).origin.how is How.EXECUTED
    assert graph.origin(away, step) == f"executed at {service}"
    assert not away.log(step).exists(), "nothing ran here"
    assert home.ensure(step).origin.ours
    for name in SEEN:
        assert made(away, step, name) == made(home, step, name), name
        assert made(home, step, name)


def test_the_first_step_on_a_tool_tree(machine: Machine, service: str) -> None:
    """Nobody has said the tree's digest, and it is not set up: then it is, and the step is executed there."""
    there = prepared(machine("bare"))
    engine = there.engine(service)
    set_up: list[str] = []

    def check(name: str) -> Tree:
        set_up.append(name)
        return there.workshop.tools

    away = replace(engine, find_tools=lambda _: there.workshop.tools if set_up else None, check_tools=check)
    step = shell("echo first >/out/out")
    assert away.key(step) is None
    assert away.ensure(step).origin.how is How.EXECUTED
    assert set(set_up) == {step.tools}


def test_a_step_that_takes_part_has_a_job_server(machine: Machine, service: str) -> None:
    script = 'stat -c %F "${MAKEFLAGS##*fifo:}" >/out/out; case $MAKEFLAGS in " -j"[0-9]*) ;; *) exit 1; esac'
    for engine in (machine("there").engine(service), machine("here").workshop.engine()):
        step = shell(script, parallel=True)
        engine.ensure(step)
        assert made(engine, step) == b"fifo\n"


def test_executable_outputs_stay_so(machine: Machine, service: str) -> None:
    first = shell("echo '#!/bin/sh' >/out/out; chmod 700 /out/out; echo x >/out/plain", outputs=("out", "plain"))
    engine = machine().engine(service)
    result = engine.ensure(first)
    assert {name: node.executable for name, node in result.outputs.items()} == {"out": True, "plain": False}


@pytest.mark.parametrize("script", ["ln -s /etc/passwd /out/out", "mkdir /out/out", "true", "mkfifo /out/out"])
def test_outputs_are_regular_files(
    machine: Machine, service: str, script: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the service gives in their place is no output; the step then runs here, and is told what it was."""
    with pytest.raises(BuildError, match="out"):
        machine().engine(service).ensure(shell(script))
    assert "; the build goes on without it" in capfd.readouterr().err


def test_a_step_that_fails_there_fails_here(machine: Machine, service: str, capfd: pytest.CaptureFixture[str]) -> None:
    engine = machine().engine(service)
    with pytest.raises(BuildError, match=r"ended with status 3; whole log: .*run it again: sh "):
        engine.ensure(shell("echo the reason; exit 3"))
    said = capfd.readouterr().err
    assert "ended with status 3 at grpc:" in said
    assert "; running it here" in said
    assert "| the reason" in said


def test_the_tree_is_sent_once(machine: Machine, start: Start) -> None:
    service = start().address
    first, second = machine("first"), machine("second")
    first.engine(service).ensure(shell("echo 1 >/out/out"))
    tree = sum(path.stat().st_size for path in first.workshop.tools.path.rglob("*") if path.is_file())
    assert first.service.connection.traffic.blobs > tree / 2
    second.engine(service).ensure(shell("echo 1 >/out/out"))
    assert second.service.connection.traffic.blobs == 0
    # Another step: its command, its action, and what is new of its root.
    second.engine(service).ensure(shell("echo 2 >/out/out"))
    assert 0 < second.service.connection.traffic.blobs < 10_000


def test_a_chain_brings_only_what_is_wanted(machine: Machine, service: str) -> None:
    """An output that the next step alone takes stays there."""
    first = shell("echo first >/out/out", name="first")
    second = shell("cat /inputs/x >/out/out", name="second", inputs={"/inputs/x": first.output("out")})
    engine = machine().engine(service)
    result = engine.ensure(second)
    assert not engine.cas.has(engine.ensure(first).outputs["out"].digest.sha256, 6)
    assert made(engine, second) == b"first\n"
    assert engine.cas.has(result.outputs["out"].digest.sha256, 6)


def test_two_chained_services_are_two_machines(machine: Machine, start: Start) -> None:
    """The second hands on what it is asked to the first, which has the result by then."""
    first = start()
    second = start(remote=first.address)
    step = shell("echo made >/out/out")
    for name, at in (("one", first), ("two", second)):
        engine = machine(name).engine(at.address)
        assert engine.ensure(step).origin.how is How.EXECUTED
        assert made(engine, step) == b"made\n"


def test_without_being_told_so_nothing_runs_there(machine: Machine, service: str) -> None:
    away = machine()
    step = shell("echo made >/out/out")
    engine = away.engine(service, execute=False)
    assert engine.ensure(step).origin.ours
    assert away.service.connection.traffic.sent == 0


def test_who_builds_alone_does_not_believe_it(machine: Machine, service: str) -> None:
    """What was executed there counts no longer when steps are not executed there any more."""
    away = machine()
    step = shell("echo made >/out/out")
    assert away.engine(service).ensure(step).origin.how is How.EXECUTED
    assert away.engine(service).find(step) is not None
    for engine in (away.workshop.engine(), away.engine(service, execute=False), away.engine("grpc://127.0.0.1:1")):
        assert engine.find(step) is None
    assert away.workshop.engine().ensure(step).origin.ours
