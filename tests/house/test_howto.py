# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""docs/howto.md: each block of commands is run as it stands, in a copy of the checkout, on the built artifacts."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.checkout import copy_all
from tests.launcher.attest.attestation_kit import TCB, Draft
from tests.launcher.attest.verify_kit import NONCE, Root
from tests.launcher.bundle.image_kit import Layout
from tools.pipeline.guest import patches
from tools.pipeline.tasks.project import Project
from tools.sev.agent.report_data import Domain, report_data

# Takes an hour: what stands there is typed by ./doit test_publish.
ELSEWHERE = "tests/publish/whole.py"
HEADER = """\
Subject: virtio_ring: for a test
SPDX-FileCopyrightText: The sev-artifacts authors
SPDX-License-Identifier: GPL-2.0-only
Upstream: not sent
Tested: here

A test of the documentation.
---
"""


@dataclass(frozen=True, kw_only=True)
class Site:
    """A checkout to type in."""

    root: Path
    blocks: Mapping[str, str]
    path: str

    def type(self, heading: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run the commands below a heading of the page."""
        return self.run(self.blocks[heading], **more)

    def run(self, script: str, **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["/bin/sh", "-euc", script],
            cwd=self.root,
            env={**os.environ, "PATH": self.path, **more},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def blocks(repository: Path) -> dict[str, str]:
    """Heading → commands."""
    text = (repository / "docs/howto.md").read_text()
    return dict(re.findall(r"^## ([^\n]*)\n(?:(?!^## ).)*?^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def programs(project: Project, host_tool: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the pinned programs that the page names."""
    trees = {"mkfs.erofs": "boot", "veritysetup": "boot", "zstd": "build", "git": "lint"}
    folder = tmp_path_factory.mktemp("programs")
    for name, tree in trees.items():
        (folder / name).symlink_to(host_tool(name, project.trees.ensure(tree)))
    return folder


@pytest.fixture(scope="module")
def site(blocks: dict[str, str], programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A copy whose `./doit` takes the environment that this test runs in."""
    root = copy_all(Path(__file__).parents[2], tmp_path_factory.mktemp("howto") / "checkout")
    (root / "doit").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tools.pipeline.front "$@"\n')
    (root / "recipes/expected.sha256").unlink(missing_ok=True)
    return Site(root=root, blocks=blocks, path=f"{programs}:{os.environ['PATH']}")


@pytest.fixture(scope="module")
def built(site: Site, artifacts: Path) -> Site:
    """With the artifacts in its output folder."""
    shutil.copytree(artifacts, site.root / "out")
    return site


def good(done: "subprocess.CompletedProcess[str]") -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_recipe_is_tried(blocks: dict[str, str], repository: Path) -> None:
    """By a test that names its heading: below, or where there is a registry."""
    text = (repository / "docs/howto.md").read_text()
    assert list(blocks) == re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert text.count("```sh") == len(blocks)
    source = Path(__file__).read_text() + (repository / ELSEWHERE).read_text()
    assert not [heading for heading in blocks if f'"{heading}"' not in source]


def test_the_configuration(site: Site) -> None:
    assert good(site.type("See the kernel's configuration")).splitlines()[-1] == "CONFIG_VIRTIO=y"


def test_a_patch(site: Site, tmp_path: Path) -> None:
    """With a header it is one that the build takes, and it fits."""
    good(site.run("./doit source-linux-6.12"))
    good(site.type("Write a kernel patch"))
    diff = (site.root / "build/patch/change.diff").read_text()
    assert diff.startswith("diff --git a/drivers/virtio/virtio_ring.c b/drivers/virtio/virtio_ring.c\n")
    folder = tmp_path / "kernel-patches/6.12"
    shutil.copytree(site.root / "kernel-patches/6.12", folder)
    (folder / "0002-test.patch").write_text(HEADER + diff)
    with (folder / "series").open("a") as series:
        series.write("0002-test.patch\n")
    found = patches.load_series(tmp_path, "kernel-patches/6.12", licence="GPL-2.0-only")
    assert found[-1].subject == "virtio_ring: for a test"
    good(site.run("cd build/patch/a && git apply --check ../change.diff"))


def verified(site: Site, script: str, digest: str, root: Root) -> "Callable[..., subprocess.CompletedProcess[str]]":
    """Runs the page's commands, to be changed by pairs of texts, beside a report that a processor would give."""
    policy = int(re.findall(r"0x[0-9a-f]+", good(site.run("grep '^policy' out/runtime.toml | head -1")))[0], 16)
    draft = Draft(measurement=bytes.fromhex(digest), policy=policy, report_data=report_data(Domain.WORKLOAD, NONCE))
    files = {"report.bin": draft.raw(root.leaf_key), "nonce": NONCE, "vcek.der": root.vcek().der}
    for name, data in {**files, "ask": root.ask.der, "ark": root.ark.der}.items():
        (site.root / name).write_bytes(data)
    # The made-up processor's certificates lead to a root of its own, and it has levels of its own.
    levels = ",".join(f"{part}={level}" for part, level in TCB.items())
    script = re.sub(r"--min-tcb \S+", f"--min-tcb {levels}", script)
    script = script.replace("--chain cert_chain.pem", "--ask ask --ark ark")
    script = script.replace("out/sev-launch", f"{shlex.quote(sys.executable)} out/sev-launch")

    def run(old: str = "", new: str = "") -> "subprocess.CompletedProcess[str]":
        return site.run(script.replace(old, new) if old else script)

    return run


def commands_of(repository: Path, heading: str) -> str:
    """The last block below a heading of docs/attestation.md."""
    text = (repository / "docs/attestation.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found: list[str] = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return found[-1]


def test_a_root_with_verity_from_the_image_to_the_verdict(built: Site, repository: Path) -> None:
    """The page's commands, and those of docs/attestation.md with a report as a processor would give it."""
    (built.root / "root").mkdir()
    (built.root / "root/file").write_bytes(os.urandom(100_000))
    answer = good(built.type("Make a root file system that is checked by hash"))
    digest = re.findall(r"\b[0-9a-f]{96}\b", answer)[-1]
    block = commands_of(repository, "A guest with a verified root")
    script = f"hash=$(sed -n 's/^Root hash:[[:space:]]*//p' verity.txt)\n{block}"
    run = verified(built, script, digest, Root())
    assert good(run()).endswith("\nverified\n")
    # The control: the digests of launch-digests.json are for unbound guests.
    refused = run("--workload workload.json --nonce @nonce --domain workload", "--unbound --report-data @nonce")
    assert refused.returncode == 1
    assert "FAILED       launch digest" in refused.stdout


def test_a_container_image_from_its_digest_to_the_verdict(built: Site, repository: Path) -> None:
    """The page's commands, and those of docs/attestation.md; the image's digest is in what `bundle` says."""
    layout = Layout()
    layout.folder(built.root / "app.oci")
    answer = good(built.type("Find the launch digest of a container image"))
    digests = re.findall(r"\b[0-9a-f]{96}\b", answer)
    assert len(digests) == 2
    assert digests[0] == digests[1]
    assert answer.startswith(f"image      {json.loads(layout.files['index.json'])['manifests'][0]['digest']}\n")
    script = "rm -r app\n" + commands_of(repository, "From an image's digest")
    run = verified(built, script, digests[0], Root())
    assert good(run()).endswith("\nverified\n")
    # The control: the same image, and another command.
    refused = run("--open reports ", "--open reports --workdir /tmp ")
    assert refused.returncode == 1
    assert "FAILED       launch digest" in refused.stdout


def test_a_profile(built: Site) -> None:
    done = built.type("Add a profile")
    good(done)
    assert "nosmp" in (built.root / "out-small/runtime.toml").read_text()
    assert "nothing is expected of out" in done.stderr
    for name in ("vmlinuz", "OVMF.fd"):
        assert (built.root / f"out-small/{name}").read_bytes() == (built.root / f"out/{name}").read_bytes()


def test_more_bounce_buffers(built: Site) -> None:
    good(built.type("Give a guest more bounce buffers"))
    assert 'cmdline = "swiotlb=65536 panic=-1' in (built.root / "out-busy/runtime.toml").read_text()


def test_a_second_kernel(site: Site) -> None:
    done = site.type("Add a second kernel")
    assert good(done).splitlines()[-2:] == ["CONFIG_IKCONFIG=y", "CONFIG_IKCONFIG_PROC=y"]


def test_one_test(repository: Path, blocks: dict[str, str]) -> None:
    """In this checkout: the copy has no tests."""
    for line in blocks["Run one test"].splitlines():
        command = line.replace(".venv/bin/python", shlex.quote(sys.executable))
        assert command != line
        done = subprocess.run(["/bin/sh", "-euc", command], cwd=repository, capture_output=True, text=True, check=False)
        assert re.search(r"\d+ passed", good(done))


def test_the_graph(site: Site) -> None:
    answer = good(site.type("See what a build will do, and run a step again"))
    assert re.search(r"kernel-linux-6\.12 +[0-9a-f]{12}", answer)
    assert re.search(r"\nkernel-linux-6\.12\n(   .*\n)+   needs    kernel-config-linux-6\.12\n", answer)
    # No internals: doit's own answer was 200 KB of them.
    assert len(answer) < 10_000


def test_disk_space(site: Site, tmp_path: Path) -> None:
    """With a cache of its own: the user's is nothing to prune for a test."""
    done = site.type("Free disk space", SEV_ARTIFACTS_CACHE=str(tmp_path / "cache"))
    assert "tool trees" in good(done)
    assert "removed 0 B" in done.stderr


def test_ci(built: Site) -> None:
    done = built.type("Fail in CI when the digests differ")
    assert done.returncode == 1
    assert "nothing is expected of out" in done.stderr
    good(built.run("./doit accept:production"))
    good(built.type("Fail in CI when the digests differ"))
