# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Tasks side by side: what is said of them, failure of one, interrupts, kills, a terminal."""

import ctypes
import re
import signal
from pathlib import Path

import pytest

from tests.pipeline.front.front_kit import Terminal, alive, finish, graph, until

TWO = """
def a():
    (HERE / "a").touch()
    with ui.working("thinking"):
        wait_for("b")
    (HERE / "a.out").write_text("whole")


def b():
    (HERE / "b").touch()
    wait_for("a")


def task_all():
    yield task("a", a, targets=[HERE / "a.out"], uptodate=[True])
    yield task("b", b)
"""


def test_independent_tasks_run_at_the_same_time(tmp_path: Path) -> None:
    """Each waits for the other, so one after the other would never end."""
    done = graph(tmp_path, TWO).run()
    assert (done.status, re.sub(r"\d+\.\d s", "T", done.err)) == (
        0,
        "   all:a: thinking …\n   all:a: thinking  done, T\n",
    )
    lines = re.sub(r"\d+\.\d s", "T", done.out).splitlines()
    assert sorted(lines) == [
        "done         all:a  T",
        "done         all:b  T",
        "started      all:a",
        "started      all:b",
    ]


def test_what_is_up_to_date_is_said_in_words(tmp_path: Path) -> None:
    here = graph(tmp_path, TWO)
    here.run()
    assert here.run("all:a").out == "up to date   all:a\nnothing to do, everything is up to date\n"


def test_a_task_that_is_named_twice_runs_once_and_hides_no_other(tmp_path: Path) -> None:
    done = graph(tmp_path, TWO).run("all:a", "all:a", "all:b")
    assert sorted(line.split()[:2] for line in done.out.splitlines()) == [
        ["done", "all:a"], ["done", "all:b"], ["started", "all:a"], ["started", "all:b"],
    ]  # fmt: skip
    done = graph(tmp_path, TWO).run("all:a", "all:a", "--runs", "3")
    assert (done.status, done.err) == (2, "doit: error: all:a is named twice; give its options once\n")


ONE_FAILS = """
def fails():
    wait_for("slow.started")
    raise BuildError("broke", where="x")


def slow():
    (HERE / "slow.started").touch()
    wait_for("go")
    (HERE / "slow.out").write_text("whole")


def later():
    (HERE / "later.out").touch()


def task_all():
    yield task("fails", fails)
    yield task("slow", slow, targets=[HERE / "slow.out"], uptodate=[True])
    yield task("later", later, task_dep=["all:fails"])
"""


def test_the_failure_of_one_leaves_the_results_of_others_whole(tmp_path: Path) -> None:
    here = graph(tmp_path, ONE_FAILS)
    with here.start() as run:
        assert run.stderr is not None
        first = [run.stderr.readline(), run.stderr.readline()]
        assert first == ["error: all:fails: x: broke\n", "   waiting for what still runs: all:slow\n"]
        (tmp_path / "go").touch()
        done = finish(run)
    assert done.status == 1
    assert (tmp_path / "slow.out").read_text() == "whole"
    assert not (tmp_path / "later.out").exists()
    # It is remembered, too.
    assert here.run("all:slow").out.startswith("up to date")


def test_what_needs_a_failed_task_says_so(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    done = graph(tmp_path, ONE_FAILS).run("--continue")
    assert "error: all:later: not run, for it needs what failed: all:fails\n" in done.err


STOPPED = """
def a():
    try:
        with ui.working("compiling"):
            child("a")
    finally:
        (HERE / "cleaned").touch()


def b():
    (HERE / "b.out").write_text("whole")


def hangs():
    (HERE / "hangs").touch()
    while True:
        time.sleep(0.05)


def task_all():
    yield task("a", a)
    yield task("b", b, targets=[HERE / "b.out"], uptodate=[True])


def task_hangs():
    return {"actions": [action(hangs)]}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_everything_and_says_so_in_one_line(tmp_path: Path, number: signal.Signals) -> None:
    """A shell says 128 + the signal's number for it: 130 after Ctrl-C."""
    here = graph(tmp_path, STOPPED)
    with here.start() as run:
        child = int(here.made("a"))
        here.made("b.out")
        run.send_signal(number)
        done = finish(run)
    assert done.status == -number
    lines = re.sub(r"\d+\.\d s", "T", done.err).splitlines()
    assert lines == [
        "   all:a: compiling …",
        "   all:a: compiling  interrupted, T",
        "interrupted; the next run goes on from the last finished step",
    ]
    assert "interrupted  all:a" in done.out
    assert not alive(child)
    assert (tmp_path / "cleaned").exists()
    assert here.run("all:b").out.startswith("up to date")


def test_a_signal_that_another_thread_gets(tmp_path: Path) -> None:
    """As the kernel likes; the main thread waits for a task then, and is the one that handles it."""
    here = graph(tmp_path, STOPPED)
    with here.start() as run:
        here.made("a")
        here.made("b.out")
        others = {int(task.name) for task in Path(f"/proc/{run.pid}/task").iterdir()} - {run.pid}
        assert ctypes.CDLL(None).tgkill(run.pid, min(others), signal.SIGINT) == 0
        done = finish(run)
    assert done.status == -signal.SIGINT
    assert done.err.endswith("interrupted; the next run goes on from the last finished step\n")


def test_a_task_that_does_not_listen_is_left_behind(tmp_path: Path) -> None:
    here = graph(tmp_path, STOPPED)
    with here.start("hangs") as run:
        here.made("hangs")
        run.send_signal(signal.SIGINT)
        done = finish(run)
    assert (done.status, done.err) == (
        -signal.SIGINT,
        "interrupted; the next run goes on from the last finished step\n",
    )
    assert done.out == "started      hangs\ninterrupted  hangs\n"


def test_the_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    here = graph(tmp_path, STOPPED)
    with here.start("hangs") as run:
        here.made("hangs")
        run.send_signal(signal.SIGTERM)
        # Handled when its default is back: the next one ends the process.
        until(lambda: not int(_status(run.pid, "SigCgt"), 16) & (1 << (signal.SIGTERM - 1)))
        run.send_signal(signal.SIGTERM)
        assert finish(run).status == -signal.SIGTERM


def _status(pid: int, name: str) -> str:
    return next(
        line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(f"{name}:")
    )


def test_what_is_ignored_from_outside_stays_ignored(tmp_path: Path) -> None:
    """As for a command behind a shell's `&`, or below nohup."""
    here = graph(tmp_path, STOPPED)
    with here.start("hangs", ignore=signal.SIGINT) as run:
        here.made("hangs")
        assert int(_status(run.pid, "SigIgn"), 16) & (1 << (signal.SIGINT - 1))
        run.kill()
        finish(run)


LIVE = """
def a():
    with ui.working("compiling", detail=lambda: "7 log lines"):
        child("a")


def b():
    with ui.working("linking"):
        wait_for("go")


def quick():
    wait_for("b.seen")
    ui.line("   note: something")


def task_all():
    yield task("a", a)
    yield task("b", b)
    yield task("quick", quick)
"""


def both_run(text: str) -> bool:
    last = text.rpartition("\x1b[J")[2]
    return "all:a: compiling" in last and "all:b: linking" in last


def test_a_terminal_shows_what_runs_below_what_has_ended(tmp_path: Path) -> None:
    terminal = Terminal(graph(tmp_path, LIVE))
    terminal.read_until(both_run)
    shown = [re.sub(r"\d+\.\d s", "T", line) for line in terminal.screen()]
    assert sorted(shown) == ["   all:a: compiling  T  7 log lines", "   all:b: linking  T"]
    (tmp_path / "b.seen").touch()
    terminal.read_until(lambda text: "done         all:quick" in text and both_run(text))
    shown = [re.sub(r"\d+\.\d s", "T", line) for line in terminal.screen()]
    assert shown[:2] == ["   note: something", "done         all:quick  T"]
    assert len(shown) == 4
    (tmp_path / "go").touch()
    terminal.read_until(lambda text: "done         all:b" in text)
    terminal.press(b"\x03")
    assert terminal.end() == -signal.SIGINT
    shown = [re.sub(r"\d+\.\d s", "T", line.removeprefix("^C")) for line in terminal.screen()]
    # Nothing is left of the region, and the prompt comes on a line of its own.
    assert shown[2:] == [
        "   all:b: linking  done, T",
        "done         all:b  T",
        "   all:a: compiling  interrupted, T",
        "interrupted  all:a  T",
        "interrupted; the next run goes on from the last finished step",
        "",
    ]


def test_lines_are_cut_to_the_terminal_and_their_number_to_its_height(tmp_path: Path) -> None:
    text = """
def task_all():
    for name in "abcdefgh":
        def work():
            with ui.working("x" * 200):
                wait_for("go")
        yield task(name, work)
"""
    here = graph(tmp_path, text)
    terminal = Terminal(here, "-n", "8", rows=6, columns=40)
    terminal.read_until(lambda text: "… and 6 more" in text)
    lines = terminal.screen()
    assert len(lines) == 3
    assert all(len(line) <= 39 for line in lines)
    terminal.press(b"\x03")
    assert terminal.end() == -signal.SIGINT


def test_plain_lines_are_whole_whoever_writes(tmp_path: Path) -> None:
    text = """
def task_all():
    for number in range(8):
        def work(number=number):
            for _ in range(200):
                ui.lines([f"{number}" * 70, f"{number}" * 70])
        yield task(f"t{number}", work)
"""
    done = graph(tmp_path, text).run("-n", "8")
    lines = done.err.splitlines()
    assert len(lines) == 8 * 400
    assert all(len(line) == 70 and len(set(line)) == 1 for line in lines)
    assert all(first == second for first, second in zip(lines[::2], lines[1::2], strict=True))


def test_sys_stdout_is_nobodys_to_exchange(tmp_path: Path) -> None:
    """doit's own actions do while they run, and threads would leave each other's behind."""
    text = """
def look():
    assert sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__


def task_all():
    yield task("a", look)
    yield task("b", look)
"""
    assert graph(tmp_path, text).run().status == 0


def test_a_kill_leaves_no_programs_behind_that_die_with_us(tmp_path: Path) -> None:
    """bubblewrap asks the kernel to end it with its parent; here setpriv does."""
    here = graph(tmp_path, STOPPED)
    dodo = tmp_path / "dodo.py"
    dodo.write_text(dodo.read_text().replace('["sh", "-c"', '["setpriv", "--pdeathsig", "KILL", "sh", "-c"'))
    with here.start() as run:
        child = int(here.made("a"))
        here.made("b.out")
        run.kill()
        finish(run)
    until(lambda: not alive(child))
    assert here.run("all:b").status == 0
