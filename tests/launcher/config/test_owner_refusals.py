# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  pytest hands fixtures over by name
"""What is refused of what the owner gives, each beside its control."""

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.config.owner_kit import DH_CERT, HOST_DATA, SESSION, Call, Given, refused, signed
from tests.launcher.conftest import OWN, Answer
from tests.launcher.launcher_kit import Out
from tools.launcher.base.errors import UserError
from tools.launcher.config.owner import Wish, read
from tools.launcher.config.runtime_config import load_config
from tools.launcher.host.qemu_program import ENVIRONMENT


def test_pairs_go_together(shown: Callable[..., Answer], given: Given) -> None:
    for pair, says in ((given.pair, "--id-block and --id-auth"), (given.legacy, "--dh-cert and --session")):
        mode = ["--mode", "sev"] if pair == given.legacy else []
        for half in (pair[:2], pair[2:]):
            assert f"{says} go together or not at all" in refused(shown(*mode, *half))
        assert shown(*mode, *pair).status == 0


def test_options_of_another_mode(shown: Callable[..., Answer], given: Given) -> None:
    data = ["--host-data", HOST_DATA.hex()]
    for mode in ("sev", "sev-es"):
        line = refused(shown("--mode", mode, *given.pair))
        assert f"--id-block belongs to SEV-SNP; this guest's mode is {mode}" in line
        line = refused(shown("--mode", mode, *data))
        assert f"--host-data belongs to SEV-SNP; this guest's mode is {mode}" in line
    assert "--dh-cert belongs to SEV and SEV-ES; this guest's mode is snp" in refused(shown(*given.legacy))
    for words in (given.pair, data, given.legacy):
        line = refused(shown("--unprotected", *words))
        assert f"{words[0]} goes with a protected guest only, not with --unprotected" in line


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("id-block.bin", lambda d: d[:-1], "has 95 bytes, not 96"),
        ("id-block.bin", lambda d: d + b"\0", "has 97 bytes, not 96"),
        ("id-block.bin", lambda _: b"", "has 0 bytes, not 96"),
        ("id-block.bin", lambda d: base64.b64encode(d[:-3]), "has 124 bytes (base64 text of 93 bytes?), not 96"),
        ("id-block.bin", lambda d: d[:80] + b"\2" + d[81:], "has version 2, not 1; is it an ID block?"),
        ("id-block.bin", lambda d: d[:90] + b"\x0b" + d[91:], "signed for policy 0xb0000, this guest's is"),
        ("id-auth.bin", lambda d: d[:-1], "has 4095 bytes, not 4096"),
        ("id-auth.bin", lambda d: d[:96], "has 96 bytes, not 4096"),
        ("id-auth.bin", lambda d: b"\2" + d[1:], "names the key algorithms 2 and 1, not 1 and 0 or 1"),
        ("id-auth.bin", lambda d: d[:4] + b"\2" + d[5:], "names the key algorithms 1 and 2"),
        ("id-auth.bin", lambda _: bytes(4096), "names the key algorithms 0 and 0"),
        ("id-auth.bin", lambda _: b"x" * 100_000, "larger than 65536 bytes"),
    ],
)  # fmt: skip
def test_bad_id_blocks(
    shown: Callable[..., Answer], given: Given, name: str, damage: Callable[[bytes], bytes], says: str
) -> None:
    assert shown(*given.pair).status == 0
    given.write(name, damage((given.folder / name).read_bytes()))
    line = refused(shown(*given.pair))
    assert says in line
    assert f"--{name.removesuffix('.bin')} {given.folder}/{name}: " in line


def test_a_block_and_its_auth_exchanged(shown: Callable[..., Answer], given: Given) -> None:
    words = ["--id-block", given.folder / "id-auth.bin", "--id-auth", given.folder / "id-block.bin"]
    assert "has 4096 bytes, not 96" in refused(shown(*words))


def test_a_policy_of_its_own_goes_with_a_block_of_its_own(shown: Callable[..., Answer], given: Given, out: Out) -> None:
    out.data["sev"]["snp"]["policy"] = 0x30133
    out.write()
    line = refused(shown(*given.pair))
    assert "was signed for policy 0x30000, this guest's is 0x30133; sign one for this policy" in line
    block, auth = signed(author=False, policy=0x30133, digest=given.digest)
    given.write("id-block.bin", block)
    given.write("id-auth.bin", auth)
    assert shown(*given.pair).status == 0


def test_another_launch_digest_is_refused_where_it_is_known(out: Out, given: Given) -> None:
    config = load_config(out.config)
    wish = Wish(id_block=given.folder / "id-block.bin", id_auth=given.folder / "id-auth.bin")
    for known in (None, given.digest):
        assert read(wish, config, expected_digest=known).id_block is not None
    other = bytes(48)
    with pytest.raises(UserError) as info:
        read(wish, config, expected_digest=other)
    assert f"was signed for launch digest {given.digest.hex()}, this guest's is {other.hex()}" in str(info.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is not 32 bytes in hexadecimal; @FILE takes them from a file"),
        ("00" * 31, "is not 32 bytes in hexadecimal"),
        ("00" * 33, "is not 32 bytes in hexadecimal"),
        ("0x" + "00" * 31, "is not 32 bytes in hexadecimal"),
        ("gg" * 32, "is not 32 bytes in hexadecimal"),
        ("@/no/such/file", "No such file"),
        ("@/dev/null", "no regular file"),
        ("@", "Is a directory"),
    ],
)
def test_bad_host_data(shown: Callable[..., Answer], text: str, says: str) -> None:
    line = refused(shown("--host-data", text))
    assert says in line
    assert "--host-data" in line


def test_host_data_files_of_another_size(shown: Callable[..., Answer], given: Given) -> None:
    for size in (0, 31, 33):
        path = given.write("data", bytes(size))
        assert f"has {size} bytes, not 32" in refused(shown("--host-data", f"@{path}"))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("godh.b64", DH_CERT, "holds 1563 bytes in base64, not 2084"),
        ("godh.b64", bytes(2084), "is not base64, which is what QEMU reads; base64 -w0 FILE makes it"),
        ("godh.b64", base64.b64encode(DH_CERT[:-1]), "holds 2083 bytes in base64, not 2084"),
        ("godh.b64", base64.b64encode(SESSION), "not 2084; --dh-cert and --session exchanged?"),
        ("godh.b64", b"", "holds 0 bytes in base64, not 2084"),
        ("godh.b64", base64.b64encode(DH_CERT)[:-2], "is not base64"),
        ("session.b64", base64.b64encode(DH_CERT), "not 128; --dh-cert and --session exchanged?"),
        ("session.b64", base64.b64encode(SESSION + b"x"), "holds 129 bytes in base64, not 128"),
        ("session.b64", b"-----BEGIN-----\n" + base64.b64encode(SESSION), "is not base64"),
    ],
)
def test_bad_session_files(shown: Callable[..., Answer], given: Given, name: str, content: bytes, says: str) -> None:
    assert shown("--mode", "sev", *given.legacy).status == 0
    given.write(name, content)
    line = refused(shown("--mode", "sev", *given.legacy))
    assert says in line
    option = {"godh.b64": "--dh-cert", "session.b64": "--session"}[name]
    assert f"{option} {given.folder}/{name}: " in line


def test_files_that_are_not_there_or_no_files(shown: Callable[..., Answer], given: Given) -> None:
    os.mkfifo(given.folder / "fifo")
    for name, says in (("none", "No such file"), ("fifo", "no regular file"), ("", "Is a directory")):
        path = given.folder / name
        assert says in refused(shown("--id-block", path, *given.pair[2:]))
        assert says in refused(shown("--mode", "sev", *given.legacy[:2], "--session", path))


def test_a_run_refuses_before_anything_starts(
    out: Out, call: Call, standin: Path, tar: Path, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = out.folder / "log"
    monkeypatch.setitem(ENVIRONMENT, "STANDIN_LOG", str(log))
    words = ["run", "--config", out.config, "--qemu", standin, "--qemu-user", OWN, "--rootfs", tar]
    answer = call(*words, *given.pair[:2], "--", "true")
    assert "go together or not at all" in refused(answer)
    answer = call(*words, "--unprotected", "--host-data", HOST_DATA.hex(), "--", "true")
    assert "not with --unprotected" in refused(answer)
    assert not log.exists()
