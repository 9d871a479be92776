# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch digest --image`: from an image's blobs and the options of a `run` to a launch digest."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.bundle.image_kit import Layout, saved
from tests.launcher.conftest import Answer
from tests.launcher.launcher_kit import Out
from tools.sev.workload import reader
from tools.sev.workload.document import Document, Verity

Digest = Callable[..., Answer]


@pytest.fixture
def digest(call: Callable[..., Answer], out: Out, artifacts: Path) -> Digest:
    """The command, of artifacts that are made up, with the real mkfs.erofs."""

    def run(image: Path, *words: str) -> Answer:
        return call("digest", "--config", out.config, "--mkfs", artifacts / "mkfs.erofs", "--image", image, *words)

    return run


def document(answer: Answer) -> Document:
    assert (answer.status, answer.err) == (0, "")
    return reader.parse(answer.out.encode(), where="stdout")


def test_the_digest_is_the_one_of_the_document(
    digest: Digest, call: Callable[..., Answer], out: Out, tmp_path: Path
) -> None:
    image = saved(tmp_path / "app.tar")
    words = ("--network", "none", "--cpus", "1.5", "--tty", "--engine", "podman", "--", "--help")
    answer = digest(image, *words)
    assert (answer.status, answer.err) == (0, "")
    (tmp_path / "workload.json").write_text(digest(image, "--document", *words).out)
    again = call("digest", "--config", out.config, "--workload", tmp_path / "workload.json", "--cpus", "2")
    assert answer.out == again.out
    said = json.loads(digest(image, "--json", *words).out)
    assert said["workload"] == hashlib.sha256((tmp_path / "workload.json").read_bytes()).hexdigest()
    assert said["digests"][0]["digest"] == answer.out.split()[0]
    assert said["vcpus"] == 2


def test_a_layout_and_what_docker_saves_are_one_image(digest: Digest, tmp_path: Path) -> None:
    one = document(digest(saved(tmp_path / "app.tar"), "--document"))
    other = document(digest(Layout().folder(tmp_path / "layout"), "--document"))
    assert one == other
    assert isinstance(one.root, Verity)
    assert one.process.argv == ("/bin/app", "--serve")
    assert (one.process.uid, one.process.gid, one.process.groups) == (1000, 1001, (29, 44, 1001))
    assert one.network == "ethernet"


def test_options_that_change_nothing_may_stay(digest: Digest, tmp_path: Path) -> None:
    """A `docker run` as it was typed; beside one that does change something."""
    image = saved(tmp_path / "app.tar")
    plain = digest(image)
    assert plain.status == 0
    for words in (["--name", "web", "-p", "80:80", "-p", "443:443", "--rm", "-d"], ["--publish", "80", "--detach"]):
        assert digest(image, *words) == plain
    assert digest(image, "-i", "--rm").out != plain.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--network", "host"], "--network host: refused"),
        (["--network", "container:x"], "--network container:x: refused"),
        (["--security-opt", "seccomp=/nonexistent"], "--security-opt seccomp=/nonexistent: No such file"),
        (["--security-opt", "thing"], "--security-opt thing: cannot be computed"),
        (["--cap-add", "all"], "is no capability"),
        (["--ulimit", "files=3"], "'files' is no resource limit"),
        (["--tmpfs", "run"], "'run' is no absolute path"),
        (["--tmpfs", "/x:uid=3"], "refused (from --tmpfs)"),
        (["--volume", "/x"], "is no SOURCE:TARGET"),
        (["--memory", "64m"], "at least 128 MiB"),
        (["--open", "stdin"], "--open stdin: an engine opens it"),
        (["--user", "nobody"], "is not in the image's /etc/passwd"),
        (["--rootfs", "x"], "not allowed with argument"),
        (["--cpus", "0"], "'0' is no number of CPUs"),
    ],
)
def test_a_mistake_is_one_line(digest: Digest, tmp_path: Path, words: list[str], says: str) -> None:
    answer = digest(saved(tmp_path / "app.tar"), *words)
    assert answer.status == 2
    assert says in answer.err
    assert len(answer.err.splitlines()) == 1


def test_options_of_a_run_belong_to_an_image(call: Callable[..., Answer], out: Out) -> None:
    for words in (["--read-only"], ["--engine", "podman"], ["--document"], ["--memory", "1g"], ["--rm"], ["-p", "80"]):
        answer = call("digest", "--unbound", "--config", out.config, *words)
        assert (answer.status, " belongs to --image" in answer.err) == (2, True)
    answer = call("digest", "--unbound", "--config", out.config, "--cpus", "1.5")
    assert (answer.status, "1.5 is no whole number" in answer.err) == (2, True)
