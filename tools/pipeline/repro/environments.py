# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The two environments: how a driver is started in each, and the spec that it works through.

plain:   the caller's own, below build/repro/plain
varied:  a mount namespace in which /usr is the pinned repro tree (so Python, libarchive and bubblewrap are
         other ones too) and /mnt a tmpfs that holds all that the build writes
"""

import datetime as dt
import json
import os
import shutil
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.pipeline.base import ambient, files
from tools.pipeline.repro.variations import Name
from tools.pipeline.sandbox import sandbox

ORDINARY = 54321
"""uid and gid of the ordinary user, where root varies who builds: no account of that number is needed."""

# New Zealand's rule, written out: no time zone data need be there. POSIX.1-2024, chapter 8.3, TZ.
_ZONE = "NZST-12NZDT,M9.5.0,M4.1.0/3"
_LOCALE = "tr_TR"  # a decimal comma, and a lower case of I that surprises
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
LIBARCHIVE = "/usr/lib/x86_64-linux-gnu/libarchive.so.13"
"""The repro tree's libarchive, for libarchive-c's variable of that name."""
_PYTHON_PATH = "/mnt/site-packages"
# Programs that a step would find on the host if it looked there. Each decoy notes its name and fails.
DECOYS = (
    "ar", "as", "awk", "bash", "c++", "cargo", "cc", "cpio", "date", "find", "g++", "gcc", "git", "gzip",
    "hostname", "iasl", "id", "ld", "make", "nasm", "objcopy", "patch", "perl", "python3", "rustc", "sed",
    "sort", "strip", "tar", "uname", "whoami", "xz", "zstd",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A driver's command line, and where its results and log lie on this side."""

    name: str
    argv: tuple[str, ...]
    results: Path
    decoys_called: Path | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What both environments have in common. `trees`: the tool trees that the tasks need."""

    folder: Path
    source: Path
    bundle: Path
    tasks: tuple[str, ...]
    files: tuple[str, ...]
    trees: tuple[str, ...]


def plain(job: Job, *, cached: bool = False, memory: bool = False) -> Environment:
    """The environment of whoever runs the check, with folders of its own.

    `cached`: with the caller's cache and seal too, so not from nothing. `memory`: steps work in memory where there is
    enough, as in any build; in a check they work where directory-order says.
    """
    work = job.folder / "plain"
    results = _fresh(work / "results")
    environment = {
        **ambient.host_environment("PATH", "LANG", "LC_ALL", "TERM", "CFLAGS"),
        "HOME": str(work / "home"),
        "TMPDIR": str(work / "tmp"),
        "TZ": "UTC",
        **_settings(job.bundle if cached else work / "cache", job.bundle),
    }
    if memory:
        del environment["SEV_ARTIFACTS_SCRATCH"]
    state = ambient.state_dir()
    if cached and state is not None:
        environment["XDG_STATE_HOME"] = str(state.parent)
    spec = _spec(
        job, work=work, checkout=plain_checkout(job.folder), results=results, environment=environment,
        python=[sys.executable], source=job.source,
    )  # fmt: skip
    return Environment(
        name="plain",
        argv=(sys.executable, str(_driver(job.source)), _written(spec, work)),
        results=results,
        decoys_called=None,
    )


def plain_checkout(folder: Path) -> Path:
    """Where the plain environment of a check in `folder` builds."""
    return folder / "plain/checkout"


def plain_files(folder: Path) -> Path:
    """Where the driver of that environment hands out what was built."""
    return folder / "plain/results/files"


def varied(job: Job, chosen: Collection[Name], *, tree: Path, shift: str) -> Environment:
    """The other environment: every chosen variation away from plain, the rest as there.

    `tree` is the repro tree's root, `shift` the clock's offset (see clock_shift).
    """
    outside = job.folder / "varied"
    results = _fresh(outside / "results")
    decoys = _decoys(outside / "decoys", called=results / "decoys-called")
    on_tmpfs = Name.DIRECTORY_ORDER in chosen
    work = Path("/mnt/w") if on_tmpfs else Path("/mnt/disk")
    checkout = Path("/mnt/çà et là/a checkout with a long name") if Name.BUILD_PATH in chosen else None
    binds = [
        ("--ro-bind", job.source, "/mnt/source"),
        ("--ro-bind", job.bundle / "sha256", "/mnt/bundle/sha256"),
        ("--ro-bind", Path(next(p for p in sys.path if p.endswith("site-packages"))), _PYTHON_PATH),
        ("--ro-bind", decoys, "/mnt/decoys"),
        ("--bind", results, "/mnt/results"),
        *([] if on_tmpfs else [("--bind", _fresh(outside / "disk"), "/mnt/disk")]),
    ]
    # fmt: off
    argv = [
        sandbox.bwrap_program(), "--die-with-parent",
        "--dev-bind", "/", "/",
        "--ro-bind", os.fspath(tree / "usr"), "/usr",
        "--perms", "0777", "--tmpfs", "/mnt",
        # What bwrap makes on the way to a mount point is for its own user alone.
        "--perms", "0755", "--dir", "/mnt/bundle",
    ]
    # fmt: on
    for kind, host, inside in binds:
        argv += [kind, os.fspath(host), inside]
    if Name.HOST_NAME in chosen:
        argv += ["--unshare-uts", "--hostname", "another-host.example"]
    argv += _user(Name.USER in chosen)
    if Name.PERSONALITY in chosen or Name.ASLR in chosen:
        kind = "linux32" if Name.PERSONALITY in chosen else "x86_64"
        argv += ["setarch", kind, *(["--addr-no-randomize"] if Name.ASLR in chosen else []), "--"]
    environment = _varied_environment(chosen, work=work, shift=shift, bundle=Path("/mnt/bundle"))
    spec = _spec(
        job, work=work, checkout=checkout or work / "checkout", results=Path("/mnt/results"),
        environment=environment, python=["/usr/bin/python3"], source=Path("/mnt/source"),
    )  # fmt: skip
    spec["reverse"] = on_tmpfs
    spec["umask"] = 0o077 if Name.UMASK in chosen else 0o022
    spec["cores"] = 1 if Name.CORES in chosen else 0
    if Name.CLOCK in chosen:
        # What shifts the clock is in no step's key: only a cache that goes with the check may hold such results.
        spec["marks"].append(str(work / "cache" / sandbox.CLOCK_MARK))
    if Name.LOCALE in chosen:
        spec["localedef"] = ["localedef", "-i", _LOCALE, "-f", "UTF-8", str(work / f"locale/{_LOCALE}.UTF-8")]
        spec["folders"].append(str(work / "locale"))
    _written(spec, results)
    argv += ["/usr/bin/python3", str(_driver(Path("/mnt/source"))), "/mnt/results/spec.json"]
    return Environment(name="varied", argv=tuple(argv), results=results, decoys_called=results / "decoys-called")


def _varied_environment(chosen: Collection[Name], *, work: Path, shift: str, bundle: Path) -> dict[str, str]:
    environment = {
        "PATH": "/usr/bin:/usr/sbin",
        "HOME": str(work / "home"),
        "TMPDIR": "/tmp",  # noqa: S108 (the environment's, which exists everywhere)
        "TZ": "UTC",
        # The tree's Python takes the packages of our virtual environment, and the tree's libarchive.
        "PYTHONPATH": _PYTHON_PATH,
        "LIBARCHIVE": LIBARCHIVE,
        **_settings(work / "cache", bundle),
    }
    if Name.HOME in chosen:
        environment["HOME"] = str(work / "home of somebody else")
    if Name.TEMPORARY_FOLDER in chosen:
        environment["TMPDIR"] = "/mnt/tmp"
    if Name.TIME_ZONE in chosen:
        environment["TZ"] = _ZONE
    if Name.LOCALE in chosen:
        environment |= {"LC_ALL": f"{_LOCALE}.UTF-8", "LOCPATH": str(work / "locale")}
    if Name.PATH in chosen:
        environment["PATH"] = f"/mnt/decoys:{environment['PATH']}"
    if Name.CLOCK in chosen:
        environment |= {
            "LD_PRELOAD": FAKETIME,
            **sandbox.clock_settings(shift),
            "SEV_ARTIFACTS_CLOCK": f"{FAKETIME} {shift}",
        }
    if Name.ENVIRONMENT in chosen:
        environment |= {
            "CFLAGS": "-O0 -g -DPLANTED", "CXXFLAGS": "-O0", "LDFLAGS": "-Wl,--build-id=sha1", "CC": "false",
            "MAKEFLAGS": "-k", "KCFLAGS": "-g", "LOCALVERSION": "-planted",
            "KBUILD_BUILD_USER": "mallory", "KBUILD_BUILD_HOST": "elsewhere", "USER": "mallory",
            "RUSTFLAGS": "-Copt-level=0", "CARGO_BUILD_JOBS": "7",
            "EDK_TOOLS_PATH": "/nowhere", "WORKSPACE": "/nowhere",
            "SOURCE_DATE_EPOCH": "1", "PYTHONHASHSEED": "7", "PERL5LIB": "/nowhere",
            "TAR_OPTIONS": "--mode=777", "XZ_OPT": "-0", "ZSTD_CLEVEL": "1", "GZIP": "-1",
        }  # fmt: skip
    return environment


def clock_shift(now: float) -> str:
    """An offset of months, in faketime's form, to the other side of a change to or from summer time.

    `now` in seconds since the epoch.
    """
    # From the last Sunday of September to the first of April: the rule above without its hours.
    for days in (150, 180, 210, 240):
        if _summer(now) != _summer(now + days * 86_400):
            return f"+{days}d"
    raise AssertionError("half a year never ends in the same season")


def _summer(seconds: float) -> bool:
    date = dt.datetime.fromtimestamp(seconds, tz=dt.UTC)
    return not (4, 8) <= (date.month, date.day) < (9, 24)


def _user(other: bool) -> list[str]:
    """End of bwrap's options, and what changes the user."""
    root = ambient.effective_uid() == 0
    if not other:
        return ["--"]
    if not root:
        return ["--unshare-user", "--uid", "0", "--gid", "0", "--"]
    uid = str(ORDINARY)
    return ["--", "setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--"]


def _settings(cache: Path, bundle: Path) -> dict[str, str]:
    """The project's own settings: an empty cache, the downloads of the real one as its only mirror, no step in memory.

    There two builds would list every folder that a step makes in the same order.
    """
    return {
        "SEV_ARTIFACTS_SCRATCH": "disk",
        "SEV_ARTIFACTS_CACHE": str(cache),
        "SEV_ARTIFACTS_MIRROR": f"bundle={bundle.as_uri()}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _spec(
    job: Job,
    *,
    work: Path,
    checkout: Path,
    results: Path,
    environment: dict[str, str],
    python: Sequence[str],
    source: Path,
) -> dict[str, Any]:
    return {
        "source": str(source),
        "checkout": str(checkout),
        "work": str(work),
        "results": str(results),
        "folders": [str(work), environment["HOME"], environment["TMPDIR"], environment["SEV_ARTIFACTS_CACHE"]],
        "marks": [],
        "environment": environment,
        "python": list(python),
        "tasks": list(job.tasks),
        "files": list(job.files),
        "trees": list(job.trees),
        "reverse": False,
        "umask": 0o022,
        "cores": 0,
        "localedef": [],
    }


def _written(spec: dict[str, Any], folder: Path) -> str:
    path = folder / "spec.json"
    files.write_atomically(path, json.dumps(spec, indent=1).encode())
    return str(path)


def _driver(source: Path) -> Path:
    return source / "tools/pipeline/repro/driver.py"


def _decoys(folder: Path, *, called: Path) -> Path:
    text = '#!/bin/sh\necho "${0##*/}" >>/mnt/results/' + called.name + "\nexit 99\n"
    for name in DECOYS:
        files.write_atomically(folder / name, text.encode(), mode=0o755)
    folder.chmod(0o755)
    return folder


def _fresh(folder: Path) -> Path:
    """An empty folder that the ordinary user can write to."""
    folder.mkdir(parents=True)
    if ambient.effective_uid() == 0:
        shutil.chown(folder, ORDINARY, ORDINARY)
    return folder
