# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Print, as JSON, what the environment of a build looks like from inside: `python -m … WORK TREE`.

Runs in a checkout, as doit itself does, and looks out of the sandbox that build steps run in, too: on the tool
tree of that name, which must be set up. Makes no artifact: whatever it reads stays in the report.
"""

import json
import locale
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tools.pipeline.base.errors import SevArtifactsError
from tools.pipeline.sandbox import sandbox

_FILES = 64
# Where the stack begins: moves with every start unless addresses are not randomised. (What lies in the
# program's own segments does not where the program is no position-independent one.)
_ADDRESS = "print([line for line in open('/proc/self/maps') if '[stack]' in line][0].partition('-')[0])"
_INSIDE = "date +%s; date -u +%Y-%m-%d; uname -n; uname -m; id -u; pwd; echo $HOME $LC_ALL $TZ; umask"


def facts(work: Path, tree: Path) -> dict[str, Any]:
    """Everything that variations.py judges by. `work` is on the file system that the build uses, `tree` the root."""
    umask = os.umask(0)
    os.umask(umask)
    try:
        locale.setlocale(locale.LC_ALL, "")
        name = locale.setlocale(locale.LC_ALL)
    except locale.Error:
        name = "none"
    now = time.time()
    return {
        "cwd": str(Path.cwd()),
        "uid": os.geteuid(),
        "umask": umask,
        "locale": name.partition(";")[0],
        "decimal_mark": locale.localeconv()["decimal_point"],
        "utc_offset": time.localtime(now).tm_gmtoff,
        "home": os.environ.get("HOME", ""),
        "variables": len(os.environ),
        "cflags": os.environ.get("CFLAGS", ""),
        "gcc": shutil.which("gcc") or "none",
        "host_name": os.uname().nodename,
        "machine": os.uname().machine,
        "cores": len(os.sched_getaffinity(0)),
        "clock": now,
        "date": time.strftime("%Y-%m-%d %H:%M", time.localtime(now)),
        "zone_has_summer_time": bool(time.daylight),
        "summer_time": time.localtime(now).tm_isdst,
        "summer_time_unshifted": time.localtime(now - _shift()).tm_isdst,
        "order": _order(work),
        "work_type": _file_system(work),
        "aslr": _address() != _address(),
        "tmp": tempfile.gettempdir(),
        "tmp_type": _file_system(Path(tempfile.gettempdir())),
        "python": platform.python_version(),
        "sandbox": _in_sandbox(tree),
    }


def _shift() -> float:
    """Seconds by which the clock was asked to be shifted (+210d)."""
    words = os.environ.get("SEV_ARTIFACTS_CLOCK", "").split()
    return float(words[1].strip("+d")) * 86_400 if len(words) == 2 else 0.0


def _order(work: Path) -> list[str]:
    with tempfile.TemporaryDirectory(dir=work) as name:
        for number in range(_FILES):
            Path(name, f"{number:02}").touch()
        return [path.name for path in Path(name).iterdir()]


def _file_system(path: Path) -> str:
    """The type of the file system that a folder lies on, by /proc/self/mountinfo (proc(5))."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    found = "unknown"
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted:
            found = after.split()[0]
    return found


def _address() -> str:
    done = subprocess.run([sys.executable, "-c", _ADDRESS], capture_output=True, text=True, check=True)
    return done.stdout


def _in_sandbox(tree: Path) -> dict[str, Any]:
    command = sandbox.Command(
        argv=("/bin/sh", "-euc", _INSIDE), tree=tree, chdir="/inputs", personality=sandbox.PERSONALITY
    )
    lines = sandbox.output_of(command).decode().splitlines()
    return {"clock": float(lines[0]), "date": lines[1], "rest": lines[2:]}


if __name__ == "__main__":
    try:
        print(json.dumps(facts(Path(sys.argv[1]), Path("build/trees", sys.argv[2]).resolve())))
    except SevArtifactsError as error:
        sys.exit(str(error))
