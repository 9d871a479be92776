# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The one place that reads the environment, the clock and the machine.

Nothing here may reach the bytes of an artifact: these values choose where files lie, how many jobs run
and what a person sees. A test searches the rest of `tools/` for strays.
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tools.pipeline.base.errors import UserError


def repository_root() -> Path:
    """The checkout that this code belongs to."""
    return Path(__file__).resolve().parents[3]


def cache_dir() -> Path:
    """Where downloads and tool trees are kept: SEV_ARTIFACTS_CACHE, else the XDG cache folder."""
    chosen = os.environ.get("SEV_ARTIFACTS_CACHE")
    if chosen:
        path = Path(chosen)
        if not path.is_absolute():
            raise UserError(
                f"{chosen!r} is not an absolute path",
                where="SEV_ARTIFACTS_CACHE",
                hint="set it to an absolute folder or unset it",
            )
        return path
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base or not Path(base).is_absolute():
        # XDG Base Directory Specification: relative values are invalid and ignored.
        home = os.environ.get("HOME", "")
        if not Path(home).is_absolute():
            raise UserError(
                "no HOME and no XDG_CACHE_HOME, so there is no place for the cache",
                hint="set SEV_ARTIFACTS_CACHE to a folder",
            )
        base = str(Path(home) / ".cache")
    return Path(base) / "sev-artifacts"


def state_dir() -> Path | None:
    """Where this user's own state is kept (XDG Base Directory Specification); None without a home."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not Path(base).is_absolute():
        home = os.environ.get("HOME", "")
        if not Path(home).is_absolute():
            return None
        base = str(Path(home) / ".local/state")
    return Path(base) / "sev-artifacts"


REMOTE, REMOTE_EXECUTE = "SEV_ARTIFACTS_REMOTE", "SEV_ARTIFACTS_REMOTE_EXECUTE"
REMOTE_CONFIG = "SEV_ARTIFACTS_REMOTE_CONFIG"


def remote() -> str:
    """The shared cache or service in SEV_ARTIFACTS_REMOTE; empty when unset."""
    return os.environ.get(REMOTE, "").strip()


def remote_execute() -> bool:
    """Whether SEV_ARTIFACTS_REMOTE_EXECUTE says that steps run at the service."""
    chosen = os.environ.get(REMOTE_EXECUTE, "")
    if chosen not in {"", "1"}:
        raise UserError(f"{chosen!r} is not known", where=REMOTE_EXECUTE, hint="set it to 1, or unset it")
    return bool(chosen)


def remote_config() -> Path:
    """Whose results are taken: SEV_ARTIFACTS_REMOTE_CONFIG, else remote.toml in the XDG configuration folder."""
    chosen = os.environ.get(REMOTE_CONFIG, "")
    if chosen:
        if not Path(chosen).is_absolute():
            what = f"{chosen!r} is not an absolute path"
            raise UserError(what, where=REMOTE_CONFIG, hint="set it to an absolute path, or unset it")
        return Path(chosen)
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if not Path(base).is_absolute():
        home = os.environ.get("HOME", "")
        if not Path(home).is_absolute():
            hint = f"set {REMOTE_CONFIG} to a file"
            raise UserError("no HOME and no XDG_CONFIG_HOME, so there is no remote.toml", hint=hint)
        base = str(Path(home) / ".config")
    return Path(base) / "sev-artifacts/remote.toml"


def docker_config() -> Path | None:
    """Where docker, oras, cosign and others keep who the user is to registries; None without a home."""
    chosen = os.environ.get("DOCKER_CONFIG") or ""
    if chosen:
        return Path(chosen) / "config.json"
    home = os.environ.get("HOME", "")
    return Path(home) / ".docker/config.json" if Path(home).is_absolute() else None


def effective_uid() -> int:
    """Who we are, for what only root can do."""
    return os.geteuid()


def now() -> float:
    """Seconds since the epoch, for a check that shifts the clock; never for an artifact."""
    return time.time()


def random_bytes(count: int) -> bytes:
    """Random bytes for a key that never reaches an artifact."""
    return os.urandom(count)


def sandbox_clock() -> tuple[Path, str] | None:
    """The library and the offset (as in +210d) that shift the clock of every build step, normally None.

    Set by the reproducibility check alone: artifacts must not differ by it.
    """
    library, _, offset = os.environ.get("SEV_ARTIFACTS_CLOCK", "").partition(" ")
    return (Path(library), offset) if library and offset else None


def mirror_override() -> list[str]:
    """Base URLs in SEV_ARTIFACTS_MIRROR, separated by white space; empty when unset."""
    return os.environ.get("SEV_ARTIFACTS_MIRROR", "").split()


def cpu_count() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def scratch_on_disk() -> bool:
    """Whether SEV_ARTIFACTS_SCRATCH forbids steps to work in memory."""
    chosen = os.environ.get("SEV_ARTIFACTS_SCRATCH", "")
    if chosen not in {"", "disk"}:
        raise UserError(f"{chosen!r} is not known", where="SEV_ARTIFACTS_SCRATCH", hint="set it to disk or unset it")
    return bool(chosen)


def available_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that can be taken without swapping; 0 where that is not known.

    The least of what the machine has and of what our control group and those above it may still have. `root` is where
    /proc and /sys are.
    """
    machine = re.search(r"^MemAvailable: *(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    if machine is None:
        return 0
    found = [int(machine[1]) * 1024]
    for most, used in _memory_groups(root):
        # A group without a limit says "max" (version 2), or has none at the top.
        if most.isdecimal() and used.isdecimal():
            found.append(max(int(most) - int(used), 0))
    return min(found)


def _memory_groups(root: Path) -> Iterator[tuple[str, str]]:
    """Limit and use of our control group and of each above it (cgroups(7)), as texts."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            top, most, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, most, used = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        below = [part for part in group.split("/") if part not in {"", ".."}]
        for count in range(len(below) + 1):
            folder = top.joinpath(*below[:count])
            yield _text(folder / most).strip(), _text(folder / used).strip()


def _text(path: Path) -> str:
    """A file of the kernel's, empty where there is none."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def monotonic() -> float:
    """Seconds of a clock for durations and time limits."""
    return time.monotonic()


def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def standard_error() -> TextIO:
    """The real one, whatever sys.stderr has been replaced by (doit and pytest do)."""
    return sys.__stderr__ if sys.__stderr__ is not None else sys.stderr


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Columns and rows, 80 and 24 when the stream does not know."""
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    # A terminal of a program (expect, a serial line) may say 0.
    return columns or 80, rows or 24


def is_terminal(stream: TextIO) -> bool:
    """Whether a person watches the stream."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def colour_wanted(stream: TextIO) -> bool:
    """Colour only on a terminal, and not where NO_COLOR (no-color.org) is set to anything."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


def host_environment(*names: str) -> dict[str, str]:
    """The named variables as they are set, for host tools (apt, bwrap) that need them."""
    return {name: os.environ[name] for name in names if name in os.environ}


def silence_grpc() -> None:
    """Keep gRPC's core from lines of its own on standard error; it reads this when it is first imported."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def whole_environment() -> dict[str, str]:
    """All of it, for a program that a person could have typed in our place."""
    return dict(os.environ)


def pip_environment() -> dict[str, str]:
    """What pip reads its configuration from: where the index is, and how this machine reaches it."""
    proxies = (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
    )
    others = ("PATH", "HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "NETRC", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
    return host_environment(*proxies, *others, *(name for name in os.environ if name.startswith("PIP_")))
