# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit bench:engines`: `docker run` with sev-runtime beside runc, in a box of its own; guests under emulation.

docker run ─┬─ create: image's disk (cold: made, warm: found), guest booted ─┐
            ├─ start: the workload runs                                      ├─ by a script around the runtime
            ├─ until the monitor ends                                        │  that writes down the time
            └─ delete ───────────────────────────────────────────────────────┘
"""

import statistics
import time
from collections.abc import Callable

from tests.bench.report import Part, Row, say, seconds, spread
from tests.engines import machine
from tests.engines.box import Box, wait
from tests.engines.kit import RUNC, Docker, Runtime, guests
from tests.engines.whole.network import LISTENS, SEND
from tools.pipeline.tasks.project import Project

_MORE = 0.5  # seconds that an engine may add to `sev-launch run`; the goal
_TIMED = """\
#!/bin/sh
for command; do case $command in create|start|delete) break;; esac; done
before=$(date +%s.%N)
"{program}" "$@"
status=$?
echo "$command $before $(date +%s.%N)" >>/run/times
exit $status
"""
_TIMED_RUNTIME = Runtime(name="timed", path="/usr/local/bin/timed")
_BYTES = 256 << 20
_SERVE = "httpd -f -p 80 -h /var/www"
_NONE = ("--rm", "--network=none")


def measure(project: Project, *, runs: int) -> Part:
    """All of it, `runs` times each."""
    with machine.opened(project) as box:
        return _Bench(box, runs).measure()


class _Bench:
    def __init__(self, box: Box, runs: int) -> None:
        self.box, self.runs = box, runs
        known = machine.runtimes(box)
        box.write("/usr/local/bin/timed", _TIMED.format(program=known["sev"].path), mode=0o755)
        self.docker = Docker(box=box, runtime=known["sev"], runtimes=(*known.values(), _TIMED_RUNTIME)).start()
        self.docker.load(machine.image_of(box))
        self.data: dict[str, object] = {}

    def measure(self) -> Part:
        rows = [*self._runs(), self._launcher(), *self._memory(), *self._through(), self._first_byte()]
        return Part(rows=tuple(rows), data=self.data)

    def _times(self, name: str, what: Callable[[], object], before: Callable[[], object] = lambda: None) -> list[float]:
        taken = []
        for _ in range(self.runs):
            before()
            begin = time.monotonic()
            what()
            taken.append(time.monotonic() - begin)
        self.data[name] = spread(taken)
        say(f"{name}: {seconds(statistics.median(taken))}")
        return taken

    def _true(self, runtime: Runtime) -> Callable[[], object]:
        return lambda: self.docker.using(runtime).says(*_NONE, argv=["true"])

    def _runs(self) -> list[Row]:
        self._true(RUNC)()
        self.runc = statistics.median(self._times("docker run, runc", self._true(RUNC)))
        cold = self._times("docker run, cold", self._true(self.docker.runtime), self._forget)
        self.warm = statistics.median(self._times("docker run, warm", self._true(self.docker.runtime)))
        beside = f"{seconds(self.runc)} (runc)"
        rows = [
            Row(what="`docker run --rm busybox true`, the image's first container", goal="", met=None,
                measured=seconds(statistics.median(cold)), beside=beside),
            Row(what="the same, later ones", measured=seconds(self.warm), beside=beside, goal="", met=None),
        ]  # fmt: skip
        parts = self._parts()
        return [*rows, Row(what="of these: boot, workload, teardown", measured=parts, goal="", met=None)]

    def _forget(self) -> None:
        self.box.check("rm", "-rf", "/var/lib/sev-runtime")

    def _parts(self) -> str:
        self.box.check("rm", "-f", "/run/times")
        self._times("docker run, timed", self._true(_TIMED_RUNTIME))
        found: dict[str, list[tuple[float, float]]] = {}
        for line in self.box.read("/run/times").splitlines():
            name, begin, end = line.split()
            found.setdefault(name, []).append((float(begin), float(end)))
        lasted = {
            "boot": [end - begin for begin, end in found["create"]],
            # Engines delete a container twice: its end is the first one behind its start.
            "workload": [
                next(after for after, _ in found["delete"] if after > before) - before for before, _ in found["start"]
            ],
            "teardown": [end - begin for begin, end in found["delete"]],
        }
        self.data |= {name: spread(taken) for name, taken in lasted.items()}
        return ", ".join(seconds(statistics.median(taken)) for taken in lasted.values())

    def _launcher(self) -> Row:
        launcher = f"{machine.OUT}/sev-launch"
        self.box.check(launcher, "bundle", "-o", "/srv/bundle", f"/srv/{machine.IMAGE}", "--", "true")
        run = (launcher, "run", "--unprotected", "--quiet", "--bundle", "/srv/bundle")
        plain = statistics.median(self._times("sev-launch run", lambda: self.box.check(*run)))
        more = self.warm - plain
        return Row(what="what docker and sev-runtime add to `sev-launch run`", measured=seconds(more),
                   beside=f"{seconds(plain)} (sev-launch)", goal=f"≤ {_MORE} s", met=more <= _MORE)  # fmt: skip

    def _memory(self) -> list[Row]:
        name = self.docker.detached("--network=none", argv=["sh", "-c", "echo ready; sleep 1000"])
        self.docker.until_log(name, "ready")
        rows = []
        (qemu,) = guests(self.box)
        for what, pid in (
            ("the monitor", self.docker.inspect(name, ".State.Pid")),
            ("QEMU, guest's memory included", qemu),
        ):
            lines = self.box.read(f"/proc/{pid}/smaps_rollup").splitlines()
            size = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) << 10
            self.data[f"memory, {what}"] = size
            rows.append(
                Row(what=f"resident memory of {what}", measured=f"{size / (1 << 20):.0f} MiB", goal="", met=None)
            )
        self.docker("rm", "--force", name)
        return rows

    def _through(self) -> list[Row]:
        rows = []
        for what, one in (("stdin to stdout", self._streams), ("to a published port", self._port)):
            ours, theirs = (
                _BYTES / (1 << 20) / statistics.median(self._times(f"{what}, {runtime.name}", one(runtime)))
                for runtime in (self.docker.runtime, RUNC)
            )
            rows.append(Row(what=f"throughput, {what}, start included", measured=f"{ours:.0f} MiB/s",
                            beside=f"{theirs:.0f} MiB/s (runc)", goal="", met=None))  # fmt: skip
        return rows

    def _streams(self, runtime: Runtime) -> Callable[[], object]:
        words = " ".join(self.docker.using(runtime).words("-i", *_NONE, argv=["cat"]))
        script = f"head -c {_BYTES} /dev/zero | {words} >/dev/null"
        return lambda: self.box.run("sh", "-euc", script, limit=3600)

    def _port(self, runtime: Runtime) -> Callable[[], object]:
        def run() -> None:
            argv = ["sh", "-c", "nc -l -p 9000 | wc -c"]
            name = self.docker.using(runtime).detached("--publish=9000:9000", argv=argv)
            self.docker("exec", name, "sh", "-c", LISTENS)
            assert self.box.run("python3", "-c", SEND, str(_BYTES), limit=3600).status == 0
            assert self.docker("wait", name) == "0"
            self.docker("rm", name)

        return run

    def _first_byte(self) -> Row:
        def serve(runtime: Runtime) -> Callable[[], object]:
            def run() -> None:
                self.docker.using(runtime).detached("--publish=8080:80", "--name=web", argv=["sh", "-c", _SERVE])
                page = ("curl", "--silent", "--max-time", "5", "http://127.0.0.1:8080/")
                wait(lambda: self.box.run(*page).status == 0, why="the page")

            return run

        def none() -> None:
            self.box.run("docker", "rm", "--force", "web")

        ours, theirs = (
            statistics.median(self._times(f"first byte of a page, {runtime.name}", serve(runtime), none))
            for runtime in (self.docker.runtime, RUNC)
        )
        none()
        return Row(what="`docker run` to the first byte of an HTTP answer", measured=seconds(ours),
                   beside=f"{seconds(theirs)} (runc)", goal="", met=None)  # fmt: skip
