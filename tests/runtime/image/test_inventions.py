# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The container's own layer: what engines invent is left out, anything else refused by name."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.image.overlay_kit import Here
from tools.launcher.base.errors import UserError


def invent(root: Path) -> None:
    """What docker and podman do in a root before they call a runtime."""
    for name in ("dev/pts", "dev/shm", "proc", "sys", "run/secrets", "etc"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name in ("etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv", "dev/console", "run/.containerenv"):
        (root / name).touch()
    if not (root / "etc/mtab").is_symlink():
        (root / "etc/mtab").symlink_to("/proc/mounts")


def test_inventions_are_left_out(here: Here) -> None:
    """In the container's layer and in docker's one below it; /etc is copied up with the image's mode."""
    with here.of("c0") as bare:
        pass
    here.engine.own("c1-init")
    with here.engine.mounted("c1-init", ("top", "base")) as root:
        invent(root)
    (here.engine.home / "l/C1-INIT").symlink_to("../c1-init/diff")
    here.engine.own("c1")
    with here.engine.mounted("c1", ("c1-init", "top", "base")) as root:
        invent(root)
        assert (here.engine.home / "c1-init/diff/etc").stat().st_mode & 0o777 == 0o750
        with here.disk(root) as disk:
            assert disk.verity == bare.verity


STRANGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "file": (lambda root: (root / "opt/x").write_bytes(b"x"), "'opt' (folder)"),
    "at the top": (lambda root: (root / "x").write_bytes(b"xyz"), "'x' (file of 3 bytes)"),
    "empty": (lambda root: (root / "x").touch(), "'x' (file of 0 bytes)"),
    "beside inventions": (lambda root: (root / "etc/x").write_bytes(b"x"), "'etc/x' (file of 1 bytes)"),
    "changed": (lambda root: (root / "bin/app").write_bytes(b"x"), "'bin' (folder)"),
    "an invention with content": (lambda root: (root / "etc/hosts").write_bytes(b"x"), "'etc/hosts' (file of 1 bytes)"),
    "taken away": (lambda root: (root / "bin/app").unlink(), "'bin' (folder)"),
    "a folder taken away": (lambda root: subprocess.run(["rm", "-r", root / "opt"], check=True), "'opt' (taken away)"),
    "made anew": (
        lambda root: subprocess.run(f"rm -r {root}/etc && mkdir -m 750 {root}/etc", shell=True, check=True),
        "'etc' (folder)",
    ),
    "mode": (lambda root: (root / "etc").chmod(0o777), "'etc' (folder)"),
    "owner": (lambda root: os.chown(root / "etc", 5, 5), "'etc' (folder)"),
    "folder": (lambda root: (root / "srv").mkdir(), "'srv' (folder)"),
    "link": (lambda root: (root / "etc/mtab").symlink_to("/x"), "'etc/mtab' (symbolic link)"),
    "link in place of a folder": (lambda root: (root / "dev").symlink_to("/x"), "'dev' (symbolic link)"),
    "fifo": (lambda root: os.mkfifo(root / ".dockerenv"), "'.dockerenv' (special file)"),
    "several": (
        lambda root: [(root / name).write_bytes(b"") for name in "abcde"],
        "'a' (file of 0 bytes), 'b' (file of 0 bytes), 'c' (file of 0 bytes) and 2 more",
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_anything_else_is_refused(here: Here, name: str) -> None:
    change, shown = STRANGE[name]
    with here.roots(("top", "base")) as root:
        here.disk(root).close()
        change(root)
        with pytest.raises(UserError, match=re.escape(f"own layer has {shown}, which no image brought; a container")):
            here.disk(root)


def test_accounts_of_podmans(here: Here) -> None:
    """It writes an entry for a user that the image does not know."""
    with here.roots(("top", "base")) as root:
        (root / "etc/passwd").write_text("1234:x:1234:0::/:/bin/sh\n")
        with pytest.raises(
            UserError, match=r"'etc/passwd' \(file of 25 bytes\), which .*; `podman run --passwd=false`"
        ):
            here.disk(root)
        (root / "etc/passwd").unlink()
        here.disk(root).close()


def test_what_the_caller_knows_of(here: Here) -> None:
    """Working directory and mounts' targets, as far as they are empty."""
    with here.roots(("top", "base")) as root:
        (root / "srv/data").mkdir(parents=True)
        os.chown(root / "srv/data", 5, 5)
        (root / "run.sock").touch()
        with pytest.raises(UserError, match=r"'run.sock' .*'srv'"):
            here.disk(root)
        here.disk(root, made=("/srv/data", "/run.sock", "/")).close()
        (root / "srv/data/f").touch()
        with pytest.raises(UserError, match="'srv/data/f'"):
            here.disk(root, made=("/srv/data", "/run.sock"))
