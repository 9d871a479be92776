# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A guest with a network has another kernel, so another launch digest: its document is enough to take the right one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.sev.workload.document import Document, Process, Tar


def digest(repository: Path, *words: str | Path) -> str:
    argv = [sys.executable, "-m", "tools.launcher", "digest", *words]
    done = subprocess.run(argv, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("network", "config"), [("ethernet", "runtime-network.toml"), ("none", "runtime.toml")])
def test_the_document_says_which_config_is_meant(
    repository: Path, artifacts: Path, tmp_path: Path, network: str, config: str
) -> None:
    process = Process(argv=("true",))
    document = Document(root=Tar(length=512, sha256="0" * 64), process=process, network=network)
    path = tmp_path / "workload.json"
    path.write_bytes(document.data)
    by_document = digest(repository, "--workload", path)
    named = {name: digest(repository, "--workload", path, "--config", artifacts / name) for name in
             ("runtime.toml", "runtime-network.toml")}  # fmt: skip
    assert by_document == named[config]
    assert len(set(named.values())) == 2


def test_each_config_has_its_own_digests(repository: Path, artifacts: Path) -> None:
    """What `check` compares, and what `verify` reads without a document."""
    for config, digests in (
        ("runtime.toml", "launch-digests.json"),
        ("runtime-network.toml", "launch-digests-network.json"),
    ):
        argv: list[str | Path] = [sys.executable, "-m", "tools.launcher", "check", "--config", artifacts / config]
        assert subprocess.run(argv, cwd=repository, capture_output=True, check=False).returncode == 0
        kernel = json.loads((artifacts / digests).read_text())["depends_on"]["artifacts"]["kernel"]["file"]
        assert kernel == {"runtime.toml": "vmlinuz", "runtime-network.toml": "vmlinuz-network"}[config]
