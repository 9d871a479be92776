# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""./doit makes .venv, and makes it again when it does not fit: real set-ups, with one tiny package for all.

The package is called doit, and what `./doit` would run prints its arguments.
"""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

MAKING = "doit: making .venv from requirements.lock\n"
PYTHON = Path(sys.base_prefix) / "bin/python3"
# A virtual environment takes seconds to make: all but the first are copies.
COPIES = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then exec cp -a {template}/. "$3"; fi
exec {python} "$@"
"""
MAIN = 'import sys\ndef run(argv): print("ran", *argv, sys.prefix)\n'


@dataclass(frozen=True, kw_only=True)
class Site:
    """A checkout, the folder of its package, the python3 that it finds."""

    root: Path
    wheels: Path
    programs: Path

    def start(self, *words: str, **more: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [self.root / "doit", *words],
            env={
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "HOME": "/nowhere",
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self.wheels),
                **more,
            },
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *words: str, **more: str) -> tuple[int, str, str]:
        process = self.start(*words, **more)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    @property
    def good(self) -> tuple[int, str, str]:
        """How a run in a finished environment ends."""
        return 0, f"ran x {self.root}/.venv\n", ""

    @property
    def made(self) -> tuple[int, str, str]:
        """How a run ends that makes it first."""
        return 0, f"ran x {self.root}/.venv\n", MAKING


def make_site(repository: Path, folder: Path) -> Site:
    root, wheels, programs = folder / "checkout", folder / "wheels", folder / "bin"
    for path in (wheels, programs, root / "tools/pipeline/front"):
        path.mkdir(parents=True)
    for name in ("doit", "tools/setup.sh", "tools/environment.sh", "tools/pipeline/front/start.py"):
        shutil.copy2(repository / name, root / name)
    (root / "tools/pipeline/front/main.py").write_text(MAIN)
    locks = {"doit": "requirements.lock", "extra": "requirements-dev.lock", "service": "requirements-remote.lock"}
    for name, lock in locks.items():
        (root / lock).write_text(f"{name}==1 --hash=sha256:{make_wheel(wheels, name)}\n")
    (programs / "python3").symlink_to(PYTHON)
    return Site(root=root, wheels=wheels, programs=programs)


def make_wheel(folder: Path, name: str) -> str:
    """A package with one empty module; returns its SHA-256."""
    path = folder / f"{name}-1-py3-none-any.whl"
    info = f"{name}-1.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site that is set up."""
    folder = tmp_path_factory.mktemp("set-up")
    site = make_site(repository, folder)
    assert site.run("x") == site.made
    assert site.run("x") == site.good
    # What is in it, but for the packages, and with the true Python.
    shutil.copytree(site.root / ".venv", folder / "template", symlinks=True)
    for path in (*folder.glob("template/lib/*/site-packages/doit*"), *folder.glob("template/stamp")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in (folder / "template/bin/python3", site.programs / "python3"):
        path.unlink()
    (folder / "template/bin/python3").symlink_to(PYTHON)
    (site.programs / "python3").write_text(COPIES.format(template=folder / "template", python=PYTHON))
    (site.programs / "python3").chmod(0o755)
    return site


@pytest.fixture
def site(finished: Site, tmp_path: Path) -> Site:
    """The same again, from a copy: at another place, so not yet fitting."""
    root = tmp_path / "checkout"
    shutil.copytree(finished.root, root, symlinks=True)
    shutil.copytree(finished.programs, tmp_path / "bin", symlinks=True)
    return Site(root=root, wheels=finished.wheels, programs=tmp_path / "bin")


def test_a_copied_or_moved_checkout_makes_its_own(site: Site, tmp_path: Path) -> None:
    assert site.run("x") == site.made
    moved = Site(root=tmp_path / "moved", wheels=site.wheels, programs=site.programs)
    site.root.rename(moved.root)
    assert moved.run("x") == moved.made
    assert moved.run("x") == moved.good


def test_a_python_that_was_removed_or_upgraded_is_noticed(finished: Site) -> None:
    """Removed: the environment's link leads nowhere. Upgraded: to a Python that the packages are not for."""
    link = finished.root / ".venv/bin/python"
    link.unlink()
    link.symlink_to("/usr/bin/python3.0")
    assert finished.run("x") == finished.made
    # What python3.X is now, as far as the stamp can tell.
    other = finished.root.parent / "python3.99"
    shutil.copy2(Path(sys.base_prefix) / "bin/python3", other)
    link.unlink()
    link.symlink_to(other)
    assert finished.run("x") == finished.made
    assert finished.run("x") == finished.good


def test_packages_that_the_python_does_not_find_are_installed_again(finished: Site) -> None:
    """As when another minor version came to the very path: its site-packages are empty."""
    packages = next(finished.root.glob(".venv/lib/python3*"))
    packages.rename(packages.with_name("python3.0"))
    assert finished.run("x") == finished.made


def test_another_lock_is_another_environment(finished: Site) -> None:
    lock = finished.root / "requirements.lock"
    lock.write_text(f"# changed\n{lock.read_text()}")
    assert finished.run("x") == finished.made
    assert finished.run("x") == finished.good


def test_what_python_reads_from_the_environment_has_no_say(site: Site, tmp_path: Path) -> None:
    (tmp_path / "venv.py").write_text("raise SystemExit(1)")
    assert site.run("x", PYTHONHOME="/nowhere", PYTHONPATH=str(tmp_path)) == site.made


def test_two_at_once_make_one(site: Site) -> None:
    runs = [site.start("x"), site.start("x"), site.start("x")]
    ends = [(*run.communicate(timeout=120), run.returncode) for run in runs]
    assert [(status, out) for out, _, status in ends] == [(0, site.good[1])] * 3
    said = "".join(err for _, err, _ in ends)
    assert said.count(MAKING) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_set_up_is_started_over(site: Site, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # pip asks a server that never answers.
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        run = site.start("x", PIP_NO_INDEX="0", PIP_FIND_LINKS="", PIP_INDEX_URL=url)
        silent.settimeout(120)
        silent.accept()[0].close()
        # Ctrl-C goes to all that run on the terminal.
        os.killpg(run.pid, number)
        _, err = run.communicate(timeout=120)
    assert run.returncode == -number
    interrupted = "doit: interrupted; the next run starts the set-up over\n"
    assert err == MAKING + (interrupted if number == signal.SIGINT else "")
    assert site.run("x") == site.made


def test_pips_error_is_one_line_without_a_secret(site: Site) -> None:
    secret = "http://user:s3cret@127.0.0.1:9"
    more = {"PIP_INDEX_URL": f"{secret}/simple", "PIP_PROXY": secret}
    status, out, err = site.run("x", PIP_NO_INDEX="0", PIP_FIND_LINKS="", PIP_RETRIES="0", **more)
    assert (status, out) == (1, "")
    said, line = err.splitlines()
    assert said == MAKING.strip()
    assert line.startswith("doit: error: pip cannot install the Python packages: ERROR: ")
    assert "doit==1" in line
    assert "s3cret" not in err
    assert "s3cret" not in (site.root / ".venv/setup.log").read_text()
    # Not taken for finished.
    assert site.run("x") == site.made


def test_a_package_with_other_bytes_is_refused(site: Site, tmp_path: Path) -> None:
    shutil.copytree(site.wheels, tmp_path / "wheels")
    with (tmp_path / "wheels/doit-1-py3-none-any.whl").open("ab") as wheel:
        wheel.write(b"x")
    status, _, err = site.run("x", PIP_FIND_LINKS=str(tmp_path / "wheels"))
    assert status == 1
    assert "HASHES" in err.upper()
    assert len(err.splitlines()) == 2


def test_what_tests_need_comes_when_they_are_run(finished: Site) -> None:
    """`./doit test` calls this; a build does without."""
    packages = next(finished.root.glob(".venv/lib/python3*")) / "site-packages"
    assert not (packages / "extra").exists()
    argv = ["sh", str(finished.root / "tools/setup.sh"), str(finished.root), "dev"]
    environment = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(finished.wheels)}
    said = []
    for _ in range(2):
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
        said.append(done.stderr)
    assert said == ["doit: adding requirements-dev.lock to .venv\n", ""]
    assert (packages / "extra").exists()
    assert finished.run("x") == finished.good


def test_what_a_service_needs_comes_when_one_is_named(site: Site) -> None:
    """Who builds alone, or shares a registry, installs no gRPC."""
    assert site.run("x") == site.made
    packages = next(site.root.glob(".venv/lib/python3*")) / "site-packages"
    for place in ("", "registry.example/cache"):
        assert site.run("x", SEV_ARTIFACTS_REMOTE=place) == site.good
    assert not (packages / "service").exists()
    named = {"SEV_ARTIFACTS_REMOTE": "grpc://127.0.0.1:1"}
    said = "doit: adding requirements-remote.lock to .venv\n"
    assert site.run("x", **named) == (0, f"ran x {site.root}/.venv\n", said)
    assert (packages / "service").exists()
    assert site.run("x", **named) == site.run("x", SEV_ARTIFACTS_REMOTE="grpcs://127.0.0.1:1") == site.good
