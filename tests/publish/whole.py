# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""./doit test_publish: the real artifacts, 400 MB, to Debian's registry and back, killed on the way there and back."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.publish.conftest import Run
from tests.publish.kit import Between, Server

NAME = "team/sev-artifacts"
WHY = ("--although", "a test may run in a checkout with changes")


@pytest.fixture
def doit(repository: Path) -> Callable[..., subprocess.Popen[str]]:
    """./doit as a person starts it, in a session of its own."""

    def start(*words: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(repository / "doit"), *words],
            cwd=repository, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip

    return start


def end(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


def kill_after(server: Server, start: Callable[[str], subprocess.Popen[str]], count: int, *, down: bool) -> None:
    """start(host), through a connection on which everything is killed after so many bytes."""
    found: list[int] = []
    between = Between(server.port, after=count, then=lambda: os.killpg(found[0], signal.SIGKILL), down=down)
    process = start(between.host)
    found.append(process.pid)
    process.communicate(timeout=300)
    between.close()
    assert process.returncode == -signal.SIGKILL


def test_there_and_back(
    doit: Callable[..., subprocess.Popen[str]], server: Server, artifacts: Path, stranger: Run, tmp_path: Path
) -> None:
    def publish(host: str) -> subprocess.Popen[str]:
        return doit("publish", "--to", f"{host}/{NAME}:v1", "--plain-http", *WHY)

    alone = {"SEV_ARTIFACTS_CACHE": str(tmp_path / "cache"), "SEV_ARTIFACTS_MIRROR": "http://127.0.0.1:1/debian"}

    def fetch(host: str) -> subprocess.Popen[str]:
        return doit("fetch", "--from", f"{host}/{NAME}:v1", "--plain-http", **alone)

    for count in (3_000_000, 150_000_000):
        kill_after(server, publish, count, down=False)
        assert not server.tags(NAME)
    assert " there" in end(publish(server.host))
    assert server.tags(NAME)[-1] == "v1"
    digest = stranger("oras", "resolve", "--plain-http", f"{server.host}/{NAME}:v1").strip()
    again = end(publish(server.host))
    assert digest in again
    assert "sent        0 blobs" in again
    stranger("oras", "pull", "--plain-http", f"{server.host}/{NAME}:v1", "-o", tmp_path / "pulled")
    for path in artifacts.rglob("*"):
        if path.is_file():
            assert (tmp_path / "pulled" / path.relative_to(artifacts)).read_bytes() == path.read_bytes(), path
    kill_after(server, fetch, 100_000_000, down=True)
    end(fetch(server.host))
    # Nothing is missing: with no place to look for anything, nothing is looked for.
    end(doit("fetch:sources", "fetch:build", "fetch:python", **alone))
