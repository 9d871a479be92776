# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Steps run once for the same inputs, again for any other, and a killed one leaves nothing to trust."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine import sandbox
from tools.pipeline.engine.seal import Seal
from tools.pipeline.engine.store import Input, Result, Step, Store
from tools.pipeline.toolchain.tool_tree import Tree

KEY = b"k" * 32
# Counts its runs in a file of the host that is mounted for that purpose alone.
SCRIPT = 'echo run >>/src/counter; cat /inputs/in >/out/result; echo "${WORD:-none} $1" >>/out/result'


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return open_store(tmp_path)


def open_store(tmp_path: Path, *, key: bytes = KEY, jobs: int = 2) -> Store:
    """The store of this test, as another process or another checkout would open it."""
    return Store(root=tmp_path / "build dir", shelves=tmp_path / "cache dir/steps", seal=Seal(key=key), jobs=jobs)


@pytest.fixture
def step(tmp_path: Path, build_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Step:
    """A step that says in tmp_path/counted/counter that it ran."""
    (tmp_path / "in").write_text("input\n")
    (tmp_path / "counted").mkdir()
    _make_inputs_writable(monkeypatch)
    return Step(
        name="demo",
        title="demonstrating",
        argv=("/bin/sh", "-euc", SCRIPT, "sh", "argument"),
        tool=build_tree,
        inputs=(
            Input.file(tmp_path / "in", "/inputs/in"),
            Input(host=tmp_path / "counted", inside="/src", digest="constant"),
        ),
        outputs=("result",),
    )


def _make_inputs_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    """/src of these steps can be written, so that they can count."""
    real = sandbox.bwrap_argv

    def changed(command: sandbox.Command) -> list[str]:
        mounts = tuple(replace(m, writable=m.writable or m.inside == "/src") for m in command.mounts)
        return real(replace(command, mounts=mounts))

    monkeypatch.setattr(sandbox, "bwrap_argv", changed)


def results(store: Store, name: str = "demo") -> list[Path]:
    """Finished results of a step."""
    return sorted(p for p in (store.shelves / name).iterdir() if not p.name.startswith("."))


def runs(tmp_path: Path) -> int:
    counter = tmp_path / "counted/counter"
    return counter.read_text().count("run") if counter.exists() else 0


def test_runs_once(store: Store, step: Step, tmp_path: Path) -> None:
    first = store.run(step)
    assert first.path("result").read_text() == "input\nnone argument\n"
    assert first.digests == {"result": files.of_bytes(b"input\nnone argument\n")}
    second = store.run(step)
    assert second == first
    assert runs(tmp_path) == 1
    # Another process, another store object: the key is all that counts.
    assert open_store(tmp_path, jobs=7).run(step) == first
    assert runs(tmp_path) == 1


def test_the_result_as_an_input_carries_its_content_digest(store: Store, step: Step) -> None:
    result = store.run(step)
    again = result.input("result", inside="/inputs/next")
    assert again == Input.file(result.path("result"), "/inputs/next")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: replace(s, argv=(*s.argv[:-1], "other")), id="argv"),
        pytest.param(lambda s: replace(s, environment={"WORD": "x"}), id="environment"),
        pytest.param(lambda s: replace(s, inputs=(s.inputs[0], replace(s.inputs[1], digest="y"))), id="input"),
        pytest.param(lambda s: replace(s, tool=replace(s.tool, digest="0" * 64)), id="tool"),
        pytest.param(lambda s: replace(s, inputs=(*s.inputs, replace(s.inputs[0], inside="/inputs/b"))), id="place"),
        pytest.param(lambda s: replace(s, name="demo2"), id="name"),
    ],
)
def test_each_ingredient_is_in_the_key(
    store: Store, step: Step, tmp_path: Path, change: Callable[[Step], Step]
) -> None:
    store.run(step)
    other = change(step)
    assert other.key() != step.key()
    store.run(other)
    assert runs(tmp_path) == 2
    store.run(step)
    assert runs(tmp_path) == 2


def test_what_is_not_in_the_key(store: Store, step: Step, tmp_path: Path) -> None:
    store.run(step)
    copy = tmp_path / "copy"
    copy.write_text("input\n")
    moved = replace(step, title="other words", inputs=(step.inputs[1], Input.file(copy, "/inputs/in")), keep=9)
    assert moved.key() == step.key()
    store.run(moved)
    assert runs(tmp_path) == 1


def test_a_changed_input_runs_again(store: Store, step: Step, tmp_path: Path) -> None:
    store.run(step)
    (tmp_path / "in").write_text("inpuT\n")
    result = store.run(replace(step, inputs=(Input.file(tmp_path / "in", "/inputs/in"), step.inputs[1])))
    assert result.path("result").read_text() == "inpuT\nnone argument\n"
    assert runs(tmp_path) == 2


def forge(folder: Path, data: bytes, *, key: bytes) -> None:
    """Plant another result with a record that fits it, sealed with a key."""
    (folder / "result").write_bytes(data)
    record = json.loads((folder / "step.json").read_text())["record"]
    record["outputs"]["result"] = files.of_bytes(data)
    Seal(key=key).write(folder / "step.json", record)


def test_a_planted_result_needs_the_key(store: Store, step: Step) -> None:
    """The control of the test below: with the right key, the forgery is believed."""
    first = store.run(step)
    forge(first.folder, b"tampered", key=KEY)
    assert store.run(step).path("result").read_bytes() == b"tampered"


def test_a_result_of_another_step_is_not_taken(store: Store, step: Step, tmp_path: Path) -> None:
    """Genuine, sealed, but put under another key."""
    other = replace(step, argv=(*step.argv[:-1], "other"))
    genuine = store.run(step).folder
    genuine.rename(genuine.with_name(other.key()))
    assert store.run(other).path("result").read_text() == "input\nnone other\n"
    assert runs(tmp_path) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda f: (f / "result").write_text("tampered"), id="changed"),
        pytest.param(lambda f: (f / "result").unlink(), id="missing"),
        pytest.param(lambda f: (f / "step.json").unlink(), id="no-mark"),
        pytest.param(lambda f: (f / "step.json").write_text("{"), id="half-mark"),
        pytest.param(lambda f: (f / "step.json").write_text('{"outputs": {}}'), id="empty-mark"),
        pytest.param(lambda f: forge(f, b"tampered", key=b"K" * 32), id="planted"),
    ],
)
def test_a_spoiled_result_is_made_again(
    store: Store,
    step: Step,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    capfd: pytest.CaptureFixture[str],
) -> None:
    first = store.run(step)
    spoil(first.folder)
    capfd.readouterr()
    second = store.run(step)
    assert "making it again" in capfd.readouterr().err
    assert second == first
    assert second.path("result").read_text() == "input\nnone argument\n"
    assert runs(tmp_path) == 2


def test_a_step_that_leaves_no_output_is_an_error(store: Store, step: Step) -> None:
    with pytest.raises(BuildError, match=r"^demonstrating: the step succeeded but left no other$"):
        store.run(replace(step, outputs=("result", "other")))
    assert results(store) == []


def test_a_failed_step_leaves_no_result_and_says_where_to_look(store: Store, step: Step) -> None:
    with pytest.raises(BuildError) as info:
        store.run(replace(step, argv=("/bin/sh", "-c", "echo half >/out/result; exit 9")))
    replay = store.root / "replay/demo.sh"
    assert str(info.value) == (
        f"demonstrating: the step ended with status 9; whole log: {store.root}/log/demo.log; run it again: sh {replay}"
    )
    assert results(store) == []
    assert subprocess.run(["/bin/sh", replay], check=False).returncode == 9
    assert store.run(step).path("result").read_text() == "input\nnone argument\n"


def test_each_run_starts_from_empty_folders(store: Store, step: Step) -> None:
    dirty = "ls -A /build /out; touch /build/.x /out/.y; exit 1"
    for _ in range(2):
        with pytest.raises(BuildError):
            store.run(replace(step, argv=("/bin/sh", "-c", dirty)))
        assert (store.root / "log/demo.log").read_text() == "/build:\n\n/out:\n"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_callers_umask_is_not_seen(store: Store, step: Step, umask: int) -> None:
    """Neither in what a step makes nor in the folders that are made for it."""
    looks = "mkdir new; touch file; stat -c '%a %n' /build /out new file >/out/result"
    before = os.umask(umask)
    try:
        result = store.run(replace(step, argv=("/bin/sh", "-euc", looks)))
    finally:
        os.umask(before)
    assert result.path("result").read_text() == "755 /build\n755 /out\n755 new\n644 file\n"


def test_a_success_leaves_no_scratch(store: Store, step: Step) -> None:
    store.run(replace(step, argv=("/bin/sh", "-c", "touch /build/big; touch /out/result")))
    assert not (store.shelves / "demo/.scratch").exists()


def test_old_results_are_dropped_and_used_ones_kept(store: Store, step: Step, tmp_path: Path) -> None:
    steps = [replace(step, argv=(*step.argv[:-1], str(n)), keep=2) for n in range(3)]
    folders = [store.run(s).folder for s in steps[:2]]
    for n, folder in enumerate(folders):
        os.utime(folder, (n + 1, n + 1))
    # Being used makes the first one the younger.
    store.run(steps[0])
    third = store.run(steps[2]).folder
    assert results(store) == sorted([folders[0], third])
    assert runs(tmp_path) == 3


def test_what_a_killed_run_was_deleting_goes_away(store: Store, step: Step) -> None:
    shelf = store.shelves / "demo"
    for rest in (shelf / ".doomed-0", shelf / ".doomed-.scratch", shelf / ".scratch"):
        (rest / "deep").mkdir(parents=True)
        (rest / "deep/step.json").write_text("{}")
    result = store.run(replace(step, keep=1))
    assert sorted(shelf.iterdir()) == sorted([result.folder, shelf / ".lock"])


def test_the_mark_says_what_went_in(store: Store, step: Step) -> None:
    mark = json.loads((store.run(step).folder / "step.json").read_text())["record"]
    assert mark["step"]["argv"] == list(step.argv)
    assert mark["step"]["tool"] == step.tool.digest
    assert mark["step"]["environment"]["SOURCE_DATE_EPOCH"] == "1735689600"
    assert set(mark["step"]["code"]) == {"sandbox.py", "store.py"}
    assert "JOBS" not in mark["step"]["environment"]


# The step says that it runs, waits to be killed the first time, and ends at once the second time.
SLOW = (
    "echo half >/out/result; touch /src/started; "
    "if [ ! -e /src/go ]; then sleep 1000 & wait; fi; echo whole >/out/result"
)
CHILD = """
import sys
from dataclasses import replace
from pathlib import Path
from tools.pipeline.engine import sandbox
from tools.pipeline.engine.seal import Seal
from tools.pipeline.engine.store import Input, Step, Store
from tools.pipeline.toolchain.tool_tree import Tree

root, counted, tree, tree_digest, script = sys.argv[1:]
real = sandbox.bwrap_argv
sandbox.bwrap_argv = lambda c: real(
    replace(c, mounts=tuple(replace(m, writable=m.writable or m.inside == "/src") for m in c.mounts))
)
step = Step(
    name="slow", title="slow", argv=("/bin/sh", "-euc", script),
    tool=Tree(path=Path(tree), digest=tree_digest),
    inputs=(Input(host=Path(counted), inside="/src", digest="c"),), outputs=("result",),
)
store = Store(root=Path(root), shelves=Path(root) / "steps", seal=Seal(key=b"k" * 32), jobs=1)
print(store.run(step).path("result").read_text(), end="")
"""


def _processes_that_mention(word: str) -> list[int]:
    found = []
    for folder in sorted(Path("/proc").iterdir()):
        if folder.name.isdigit():
            try:
                if word in (folder / "cmdline").read_text(errors="replace"):
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def _wait_for(what: Callable[[], bool]) -> None:
    for _ in range(3000):
        if what():
            return
        time.sleep(0.02)
    pytest.fail("nothing happened within a minute")


@pytest.mark.parametrize("moment", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle(
    store: Store, build_tree: Tree, tmp_path: Path, repository: Path, moment: signal.Signals
) -> None:
    counted = tmp_path / "counted"
    counted.mkdir()
    script = f"{SLOW} # {tmp_path}"
    store = replace(store, shelves=store.root / "steps")
    argv = [sys.executable, "-c", CHILD, store.root, counted, build_tree.path, build_tree.digest, script]
    with subprocess.Popen(argv, cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        _wait_for((counted / "started").exists)
        # The positive control of the search below: the step's processes are found while it runs.
        assert len(_processes_that_mention(f"# {tmp_path}")) >= 2
        process.send_signal(moment)
        assert process.wait() != 0
    _wait_for(lambda: not _processes_that_mention(f"# {tmp_path}"))
    assert results(store, "slow") == []
    assert (store.shelves / "slow/.scratch/out/result").read_text() == "half\n"
    (counted / "go").touch()
    done = subprocess.run(argv, cwd=repository, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "whole\n")
    assert len(results(store, "slow")) == 1
    assert not (store.shelves / "slow/.scratch").exists()


@pytest.fixture
def folder_step(step: Step) -> Step:
    """A step whose output is a folder."""
    script = "echo run >>/src/counter; mkdir /out/tree; echo a >/out/tree/a; ln -s a /out/tree/b"
    return replace(step, name="maker", argv=("/bin/sh", "-euc", script), outputs=("tree",))


def user(made: Result, step: Step) -> Step:
    """A step that reads that folder."""
    return replace(
        step,
        name="user",
        argv=("/bin/sh", "-euc", "cat /inputs/tree/a >/out/result"),
        inputs=(made.input("tree", inside="/inputs/tree"),),
    )


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda tree: (tree / "a").write_text("evil\n"), id="changed"),
        pytest.param(lambda tree: (tree / "c").write_text("more"), id="added"),
        pytest.param(lambda tree: (tree / "b").unlink(), id="removed"),
        pytest.param(lambda tree: (tree / "a").chmod(0o755), id="executable"),
        pytest.param(shutil.rmtree, id="gone"),
    ],
)
def test_a_spoiled_folder_is_made_again_before_a_step_sees_it(
    store: Store, folder_step: Step, step: Step, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    """Only then: a folder that no step needs is not even read."""
    spoil(store.run(folder_step).path("tree"))
    fresh = open_store(tmp_path)  # as another process: this one has checked the folder that it made
    made = fresh.run(folder_step)
    result = fresh.run(user(made, step))
    assert result.path("result").read_text() == "a\n"
    assert runs(tmp_path) == 2


def test_an_unspoiled_folder_is_used(store: Store, folder_step: Step, step: Step, tmp_path: Path) -> None:
    """The control of the test above."""
    store.run(folder_step)
    fresh = open_store(tmp_path)
    fresh.run(user(fresh.run(folder_step), step))
    assert runs(tmp_path) == 1


def test_a_folder_in_use_is_not_dropped(store: Store, folder_step: Step, step: Step) -> None:
    """Another checkout may drop old results while a step here works on one."""
    made = store.run(replace(folder_step, keep=1))
    other = replace(folder_step, keep=1, argv=(*folder_step.argv[:-1], f"{folder_step.argv[-1]}; :"))
    with (made.folder / "step.json").open("rb") as guard:
        fcntl.flock(guard, fcntl.LOCK_SH)
        store.run(other)
        assert made.folder.is_dir()
    store.run(replace(other, argv=(*other.argv[:-1], f"{other.argv[-1]}; : :")))
    assert not made.folder.exists()


def test_the_tool_tree_is_checked_before_a_step_runs(store: Store, step: Step) -> None:
    """Once the step is found, nothing runs and nothing is checked."""
    checked: list[Tree] = []
    careful = replace(store, check_tool=checked.append)
    careful.run(step)
    careful.run(step)
    assert checked == [step.tool]
