# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An owner's files, and `show` for a host that has a C-bit."""

import base64
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.config.owner_kit import DH_CERT, SESSION, Call, Given, signed
from tests.launcher.conftest import Answer
from tests.launcher.launcher_kit import Out
from tools.launcher.config.runtime_config import load_config
from tools.launcher.measure import digest_file
from tools.sev.modes import Mode


@pytest.fixture
def given(tmp_path: Path, out: Out) -> Given:
    config = load_config(out.config)
    own = digest_file.launch_digests(config, cmdline=digest_file.unbound_cmdline(config))
    folder = tmp_path / "the owner's, files"
    folder.mkdir()
    digest = bytes.fromhex(digest_file.configured(config, own)[Mode.SNP])
    made = Given(folder=folder, digest=digest)
    block, auth = signed(author=True, digest=digest)
    made.write("id-block.bin", block)
    made.write("id-auth.bin", auth)
    made.write("godh.b64", base64.encodebytes(DH_CERT))
    made.write("session.b64", base64.b64encode(SESSION))
    return made


@pytest.fixture
def shown(out: Out, call: Call, standin: Path) -> Callable[..., Answer]:
    """shown(options…): `show` for a host with a C-bit of 51."""
    return lambda *words: call("show", "--unbound", "--config", out.config, "--qemu", standin, "--cbit", "51", *words)
