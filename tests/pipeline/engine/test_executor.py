# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Steps really run: what is made once, what runs again, and what a failure leaves."""

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.pipeline.engine.workshop import Workshop, shell
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.step import Blob, CheckoutFile, Literal, Reference, Step


def made(engine: Engine, step: Step, name: str = "out") -> bytes:
    """The bytes of an output, as a private copy."""
    target = engine.build / "copy"
    target.unlink(missing_ok=True)
    engine.copy(step, name, target)
    return target.read_bytes()


def runs(workshop: Workshop, step: Step, *, checkout: str = "checkout") -> bool:
    """Whether a new process runs the step, told by its log."""
    engine = workshop.engine(checkout=checkout)
    engine.log(step).unlink(missing_ok=True)
    engine.ensure(step)
    return engine.log(step).exists()


def test_every_kind_of_input_is_there(workshop: Workshop) -> None:
    engine = workshop.engine()
    (workshop.root / "file").write_text("from the checkout\n")
    pinned = b"from a lock\n"
    digest = hashlib.sha256(pinned).hexdigest()
    (workshop.folder / "pinned").write_bytes(pinned)
    engine.cas.put_file(workshop.folder / "pinned")
    first = shell("echo from a step >/out/out", name="first")
    step = shell(
        "cat /inputs/pin /inputs/file /src/deep/literal /inputs/step >/out/out",
        inputs={
            "/inputs/pin": Blob(sha256=digest, size=len(pinned), where="lock: pin"),
            "/inputs/file": CheckoutFile(path="file"),
            "/src/deep/literal": Literal(data=b"literal\n"),
            "/inputs/step": first.output("out"),
        },
    )
    assert engine.key(step) is None, "not known before what it needs has been made"
    engine.ensure(step)
    assert made(engine, step) == b"from a lock\nfrom the checkout\nliteral\nfrom a step\n"
    assert workshop.checked == ["python", "python"]
    link = workshop.root / "build/results/step/out"
    assert link.read_bytes() == made(engine, step)


def test_what_a_step_sees_of_itself(workshop: Workshop) -> None:
    """Constant ids, folders and modes, whoever runs it and under whichever umask."""
    (workshop.root / "tool").write_text("#!/bin/sh\n")
    (workshop.root / "tool").chmod(0o700)
    script = "{ id -u; id -g; pwd; umask; stat -c '%n %a %u' /build /out /inputs /inputs/*; } >/out/out"
    inputs: dict[str, Reference] = {"/inputs/tool": CheckoutFile(path="tool"), "/inputs/data": Literal(data=b"")}
    step = shell(script, inputs=inputs)
    engine = workshop.engine()
    engine.ensure(step)
    lines = made(engine, step).decode().splitlines()
    assert lines[:4] == ["1000", "1000", "/build", "0022"]
    assert [line.rpartition(" ")[0] for line in lines[4:]] == [
        "/build 755", "/out 755", "/inputs 755", "/inputs/data 644", "/inputs/tool 755",
    ]  # fmt: skip


def test_once_is_enough_from_any_checkout(workshop: Workshop) -> None:
    step = shell("echo made >/out/out")
    assert runs(workshop, step)
    assert not runs(workshop, step)
    assert not runs(workshop, step, checkout="another")
    assert runs(workshop, shell("echo other >/out/out"))


def test_who_has_run_a_step_is_noted(workshop: Workshop) -> None:
    """Where it ran, with its key; not where its result came from the cache."""
    step = shell("echo made >/out/out")
    first, second = workshop.engine(), workshop.engine(checkout="second")
    first.ensure(step)
    second.ensure(step)
    assert json.loads(first.made(step.name).read_bytes()) == {"by": "sandbox", "key": first.key(step)}
    assert not second.made(step.name).exists()


def test_names_of_folders_are_bytes(tmp_path: Path, workshop: Workshop) -> None:
    """The checkout's, the cache's and the scratch folder's may be no UTF-8."""
    name = b"\xff\xfc"
    other = Workshop(folder=tmp_path / os.fsdecode(name), tools=workshop.tools)
    other.root.mkdir(parents=True)
    engine, step = other.engine(), shell("echo made >/out/out")
    engine.ensure(step)
    assert made(engine, step) == b"made\n"
    script = (other.root / "build/replay/step.sh").read_bytes()
    assert os.fsencode(other.root) in script
    assert name in script


def test_a_name_is_no_input(workshop: Workshop) -> None:
    """Two steps that do the same are one result."""
    assert runs(workshop, shell("echo made >/out/out", name="a"))
    assert not runs(workshop, shell("echo made >/out/out", name="b"))


def test_the_same_bytes_stop_the_propagation(workshop: Workshop) -> None:
    def steps(comment: str) -> tuple[Step, Step]:
        first = shell(f"echo same >/out/out # {comment}", name="first")
        return first, shell("cat /inputs/x >/out/out", name="second", inputs={"/inputs/x": first.output("out")})

    _, second = steps("one")
    assert runs(workshop, second)
    changed, unchanged = steps("two")
    assert runs(workshop, changed)
    assert not runs(workshop, unchanged)


def test_is_current_is_of_this_checkout(workshop: Workshop) -> None:
    """A result that another checkout has made is taken, and its checks run, before it counts here."""
    step = shell("echo made >/out/out")
    engine = workshop.engine()
    assert not engine.is_current(step)
    engine.ensure(step)
    assert engine.is_current(step)
    other = workshop.engine(checkout="another")
    assert other.find(step) is not None
    assert not other.is_current(step)
    other.ensure(step)
    assert other.is_current(step)


def test_a_file_of_the_checkout_counts_by_content(workshop: Workshop) -> None:
    step = shell("cat /inputs/x >/out/out", inputs={"/inputs/x": CheckoutFile(path="file")})
    file = workshop.root / "file"
    file.write_text("one")
    assert runs(workshop, step)
    file.write_text("two")
    assert not workshop.engine().is_current(step)
    assert runs(workshop, step)
    file.write_text("one")
    assert not runs(workshop, step)


def test_what_is_edited_while_it_is_copied_is_no_input(workshop: Workshop) -> None:
    file = workshop.root / "file"
    file.write_text("one")
    step = shell("cat /inputs/x >/out/out", inputs={"/inputs/x": CheckoutFile(path="file")})
    engine = workshop.engine()
    assert engine.key(step) is not None
    file.write_text("two")
    with pytest.raises(BuildError, match=r"^file: was changed while the build ran; build again"):
        engine.ensure(step)
    assert runs(workshop, step)


def test_a_file_that_is_not_there(workshop: Workshop) -> None:
    step = shell("true", inputs={"/inputs/x": CheckoutFile(path="gone")})
    with pytest.raises(UserError, match=r"^gone: No such file or directory"):
        workshop.engine().ensure(step)


def test_a_pin_that_was_not_fetched(workshop: Workshop) -> None:
    step = shell("true", inputs={"/inputs/x": Blob(sha256="0" * 64, size=3, where="lock: pin")})
    with pytest.raises(BuildError, match=r"^lock: pin: is not in the cache; ./doit fetch"):
        workshop.engine().ensure(step)


def test_a_failure_leaves_nothing_but_its_log(workshop: Workshop, capfd: pytest.CaptureFixture[str]) -> None:
    step = shell("echo the reason; echo half >/out/out; exit 3")
    with pytest.raises(BuildError, match=r"the step: the step ended with status 3; whole log: .*run it again: sh "):
        workshop.engine().ensure(step)
    assert "| the reason" in capfd.readouterr().err
    assert workshop.engine().find(step) is None
    assert not [path for path in (workshop.root / "build/scratch").rglob("*") if path.name == "out"]


def test_a_step_may_say_that_its_input_is_at_fault(workshop: Workshop) -> None:
    script = "echo noise; echo 'recipes/x.j2:3: unexpected end' >&2; exit 2"
    with pytest.raises(UserError, match=r"^recipes/x.j2:3: unexpected end$"):
        workshop.engine().ensure(shell(script, mistakes=True))
    with pytest.raises(BuildError, match="ended with status 2"):
        workshop.engine().ensure(shell(script))


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("true", "left no out"),
        ("mkdir /out/out", "out"),
        ("ln -s /etc/passwd /out/out", "out"),
        ("mkfifo /out/out", "out"),
    ],
)
def test_outputs_are_regular_files(workshop: Workshop, script: str, says: str) -> None:
    with pytest.raises(BuildError, match=says):
        workshop.engine().ensure(shell(script))
    assert workshop.engine().find(shell(script)) is None


def test_executable_outputs_stay_so(workshop: Workshop) -> None:
    first = shell("echo '#!/bin/sh' >/out/out; chmod 700 /out/out", name="first")
    second = shell("stat -c %a /inputs/x >/out/out", name="second", inputs={"/inputs/x": first.output("out")})
    engine = workshop.engine()
    engine.ensure(second)
    assert made(engine, second) == b"755\n"


def test_checks_look_at_every_result(workshop: Workshop) -> None:
    """At one that is made, and at one from the cache: it passed the checks of whoever made it."""
    seen: list[bytes] = []

    def look(outputs: Mapping[str, Path]) -> None:
        seen.append(outputs["out"].read_bytes())

    def refuse(outputs: Mapping[str, Path]) -> None:
        raise BuildError("is too large", where=outputs["out"].name)

    assert runs(workshop, shell("echo made >/out/out", checks=(look,)))
    assert not runs(workshop, shell("echo made >/out/out", checks=(look,)), checkout="another")
    assert seen == [b"made\n", b"made\n"]
    for script in ("echo made >/out/out", "echo new >/out/out"):
        engine = workshop.engine(checkout="third")
        step = shell(script, checks=(look, refuse))
        with pytest.raises(BuildError, match=r"^out: is too large"):
            engine.ensure(step)
        assert not engine.is_current(step)
    assert workshop.engine().find(shell("echo new >/out/out")) is None, "nothing is kept of what was refused"


def test_a_damaged_output_is_made_again(workshop: Workshop) -> None:
    first = shell("echo good >/out/out", name="first")
    second = shell("cat /inputs/x >/out/out", name="second", inputs={"/inputs/x": first.output("out")})
    engine = workshop.engine()
    engine.ensure(first)
    stored = (workshop.root / "build/results/first/out").resolve()
    stored.chmod(0o644)
    stored.write_bytes(b"evil\n")
    engine = workshop.engine()
    engine.ensure(second)
    assert made(engine, second) == b"good\n"


def test_who_writes_to_the_cache_meanwhile_gets_nothing_recorded(workshop: Workshop) -> None:
    """Outputs are hashed where nobody else can write; until then the cache has nothing of the step."""
    ended, touched = threading.Event(), set[str]()
    good = hashlib.sha256(b"good\n").hexdigest()

    def overwrite() -> None:
        while not ended.is_set():
            for path in (*workshop.cache.glob("partial/*"), *workshop.cache.glob("sha256/*/*")):
                with suppress(OSError), path.open("r+b") as file:
                    file.write(b"evil\n")
                    touched.add(path.name)

    writer = threading.Thread(target=overwrite)
    writer.start()
    try:
        steps = [shell(f"echo good >/out/out; sleep 0.2; : {number}", name=f"s{number}") for number in range(5)]
        engine = workshop.engine()
        results = [engine.ensure(step) for step in steps]
    finally:
        ended.set()
        writer.join()
    assert good in touched, "it did write"
    assert [result.outputs["out"].digest.sha256 for result in results] == [good] * 5
    # What is in its place by now is noticed, and made again.
    again = workshop.engine()
    assert [made(again, step) for step in steps] == [b"good\n"] * 5


def test_a_record_counts_for_its_own_key_only(workshop: Workshop) -> None:
    """A cache's writer who has no seal can still copy records about."""
    wanted, other = shell("echo wanted >/out/out"), shell("echo other >/out/out")
    engine = workshop.engine()
    engine.ensure(other)
    records = {path.stem: path for path in workshop.cache.glob("results/*/*.json")}
    key = engine.key(wanted)
    assert key is not None
    planted = workshop.cache / "results" / key[:2] / f"{key}.json"
    planted.parent.mkdir(exist_ok=True)
    planted.write_bytes(records[str(engine.key(other))].read_bytes())
    engine = workshop.engine()
    assert engine.find(wanted) is None
    engine.ensure(wanted)
    assert made(engine, wanted) == b"wanted\n"


def test_two_at_once_make_it_once(workshop: Workshop) -> None:
    step = shell("sleep 1; echo made >/out/out")
    engines = [workshop.engine(), workshop.engine(checkout="another")]
    threads = [threading.Thread(target=engine.ensure, args=(step,)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [engine.is_current(step) for engine in engines] == [True, True]
    assert sum(engine.log(step).exists() for engine in engines) == 1


def test_what_this_checkout_has_taken_is_written_down(workshop: Workshop) -> None:
    step = shell("echo made >/out/out")
    engine = workshop.engine()
    result = engine.ensure(step)
    taken = json.loads((workshop.root / "build/results/step.json").read_bytes())
    assert taken == {"key": result.key, "outputs": {"out": hashlib.sha256(b"made\n").hexdigest()}}


def test_what_failed_and_killed_runs_left_is_swept(workshop: Workshop) -> None:
    """A failed step keeps its inputs, for its replay script, until the next build makes something."""
    step = shell("exit 3", inputs={"/inputs/x": Literal(data=b"large")})
    with pytest.raises(BuildError):
        workshop.engine().ensure(step)
    room = workshop.root / "build/scratch"
    assert [path.read_bytes() for path in room.glob("step-*/inputs/**/x")] == [b"large"]
    left = workshop.cache / f"partial/new-{'0' * 32}"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"of a killed run")
    assert runs(workshop, shell("echo made >/out/out", name="other"))
    assert [path for path in room.iterdir() if path.is_dir()] == []
    assert not left.exists()


def test_checks_look_once_at_what_was_taken(workshop: Workshop) -> None:
    """Not again for each step that needs it."""
    seen: list[bytes] = []

    def look(outputs: Mapping[str, Path]) -> None:
        seen.append(outputs["out"].read_bytes())

    first = shell("echo made >/out/out", name="first", checks=(look,))
    for number in range(3):
        more = {"/inputs/x": first.output("out")}
        workshop.engine().ensure(shell(f"echo {number} >/out/out", name=f"of {number}", inputs=more))
    assert seen == [b"made\n"]
