# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""./doit idblock as people type it, over the built artifacts; and the launcher takes what it writes."""

import base64
import hashlib
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sevsnpmeasure import guest
from sevsnpmeasure.sev_mode import SevMode

from tests.checkout import copy_all
from tests.sev.workload.corpus import documents
from tools.launcher.config.owner import Wish, read
from tools.launcher.config.runtime_config import load_config
from tools.pipeline.measure import id_keys

MILAN = 0xA00F11


@dataclass(frozen=True, kw_only=True)
class Done:
    status: int
    err: str

    def error(self) -> str:
        """The one line after "error: idblock: "."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: idblock: ")
        return lines[0].removeprefix("error: idblock: ")


@dataclass(frozen=True, kw_only=True)
class Checkout:
    """A copy with the real artifacts in out/, and keys outside it."""

    root: Path
    keys: Path

    def idblock(self, *words: str, binding: Sequence[str] = ("--unbound",)) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "tools.pipeline.front", "idblock", *binding, *words],
            cwd=self.root,
            env={"PATH": os.environ["PATH"], "HOME": str(self.root)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return Done(status=done.returncode, err=done.stderr)

    @property
    def key(self) -> list[str]:
        return ["--key", str(self.keys / "id.pem")]

    @property
    def author(self) -> list[str]:
        return ["--author-key", str(self.keys / "author.pem")]

    def written(self, folder: str = "build/idblock/production") -> tuple[bytes, bytes]:
        block, auth = ((self.root / folder / f"{name}.bin").read_bytes() for name in ("id-block", "id-auth"))
        return block, auth


@pytest.fixture
def checkout(repository: Path, artifacts: Path, tmp_path: Path) -> Checkout:
    root = copy_all(repository, tmp_path / "checkout")
    shutil.copytree(artifacts, root / "out")
    keys = tmp_path / "keys"
    keys.mkdir()
    for name in ("id.pem", "author.pem"):
        pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (keys / name).write_bytes(pem)
        (keys / name).chmod(0o600)
    return Checkout(root=root, keys=keys)


def launch_digest(
    checkout: Checkout,
    *,
    vcpus: int = 1,
    signature: int = 0x800F12,
    word: str = "sev_agent.unbound",
    kernel: str = "vmlinuz",
) -> bytes:
    out = checkout.root / "out"
    cmdline = f"{load_config(out / 'runtime.toml').cmdline} {word}"
    files = [str(out / name) for name in ("OVMF.fd", kernel, "initramfs.cpio.zst")]
    return bytes(guest.calc_launch_digest(SevMode.SEV_SNP, vcpus, signature, *files, cmdline, 0x1))


def test_the_block_of_the_built_artifacts(checkout: Checkout) -> None:
    done = checkout.idblock(*checkout.key)
    assert done.status == 0, done.err
    block, auth = checkout.written()
    digest, family, image, version, svn, policy = struct.unpack("<48s16s16sIIQ", block)
    assert digest == launch_digest(checkout, vcpus=1, signature=0x800F12)
    assert (family, image) == (b"sev-artifacts\0\0\0", b"guest".ljust(16, b"\0"))
    assert (version, svn, policy) == (1, 0, 0x30000)
    assert len(auth) == 4096
    # Key digests and all else that goes into a verifier's policy are printed.
    public = id_keys.load(checkout.keys / "id.pem").public
    assert f"ID key digest      {public.digest.hex()}" in done.err
    assert "author key digest" not in done.err
    assert digest.hex() in done.err
    folder = checkout.root / "build/idblock/production"
    for name, data in (("id-block", block), ("id-auth", auth)):
        assert (folder / f"{name}.b64").read_text() == base64.b64encode(data).decode() + "\n"


def test_what_runs_decides_what_is_signed(checkout: Checkout, repository: Path) -> None:
    document = next(iter(documents(repository)))[2]
    # A guest with a network has another kernel.
    assert b'"network":"ethernet"' in document
    (checkout.root / "workload.json").write_bytes(document)
    assert checkout.idblock(*checkout.key, binding=["--workload", "workload.json"]).status == 0
    word = f"sev_agent.workload={hashlib.sha256(document).hexdigest()}"
    assert checkout.written()[0][:48] == launch_digest(checkout, word=word, kernel="vmlinuz-network")
    done = checkout.idblock(*checkout.key, "--profile", "debug", binding=["--workload", "workload.json"])
    assert done.status == 2
    assert "has a network, and the debug profile no kernel for one" in done.error()
    offline = document.replace(b'"network":"ethernet"', b'"network":"none"').replace(
        b'"network":true', b'"network":false'
    )
    (checkout.root / "workload.json").write_bytes(offline)
    digest = hashlib.sha256((checkout.root / "workload.json").read_bytes()).hexdigest()
    done = checkout.idblock(*checkout.key, binding=["--workload", "workload.json"])
    assert done.status == 0, done.err
    signed = checkout.written()[0][:48]
    assert signed == launch_digest(checkout, word=f"sev_agent.workload={digest}")
    assert signed != launch_digest(checkout)
    assert f"workload {digest}" in done.err
    (checkout.root / "workload.json").write_bytes(b"{}")
    for binding, says in (
        ([], "the launch digest depends on what runs; give either --workload FILE or --unbound"),
        (["--unbound", "--workload", "workload.json"], "give either --workload FILE or --unbound"),
        (["--workload", "workload.json"], "--workload workload.json: version: is missing"),
        (["--workload", "none.json"], "--workload none.json: No such file or directory"),
    ):
        done = checkout.idblock(*checkout.key, binding=binding)
        assert done.status == 2
        assert says in done.error()


def test_options_decide_what_is_signed(checkout: Checkout) -> None:
    # fmt: off
    done = checkout.idblock(
        *checkout.key, *checkout.author, "--family-id", "00112233445566778899aabbccddeeff",
        "--image-id", "other", "--svn", "7", "--cpu", "EPYC-Milan", "--vcpus", "4", "--out", "signed",
    )
    # fmt: on
    assert done.status == 0, done.err
    block, auth = checkout.written("signed")
    digest, family, image, _, svn, _ = struct.unpack("<48s16s16sIIQ", block)
    assert digest == launch_digest(checkout, vcpus=4, signature=MILAN)
    assert family.hex() == "00112233445566778899aabbccddeeff"
    assert (image, svn) == (b"other".ljust(16, b"\0"), 7)
    assert auth[4:8] == b"\1\0\0\0"
    public = id_keys.load(checkout.keys / "author.pem").public
    assert f"author key digest  {public.digest.hex()}" in done.err


def test_the_same_again_gives_the_same_bytes(checkout: Checkout) -> None:
    for folder in ("one", "two"):
        assert checkout.idblock(*checkout.key, *checkout.author, "--out", folder).status == 0
    assert checkout.written("one") == checkout.written("two")
    assert checkout.idblock(*checkout.key, *checkout.author, "--out", "two", "--svn", "1").status == 0
    assert checkout.written("one") != checkout.written("two")


def test_the_key_stays_where_it_is(checkout: Checkout) -> None:
    """Neither its bytes in any form nor its text are in what the command wrote or said."""
    done = checkout.idblock(*checkout.key, *checkout.author)
    assert done.status == 0
    secrets = []
    for name in ("id.pem", "author.pem"):
        pem = (checkout.keys / name).read_bytes()
        key = serialization.load_pem_private_key(pem, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        number = key.private_numbers().private_value.to_bytes(48, "big")
        lines = [line for line in pem.splitlines() if not line.startswith(b"---")]
        secrets += [number, number[::-1], number.hex().encode(), base64.b64encode(number), lines[0], lines[1]]
    written = [path for path in sorted(checkout.root.rglob("*")) if path.is_file()]
    assert checkout.root / "build/doit.db" in written
    for data in (done.err.encode(), *(path.read_bytes() for path in written)):
        assert b"PRIVATE KEY-----\nM" not in data
        assert not any(secret in data for secret in secrets)


def test_the_launcher_takes_it(checkout: Checkout) -> None:
    assert checkout.idblock(*checkout.key, *checkout.author).status == 0
    folder = checkout.root / "build/idblock/production"
    block, auth = checkout.written()
    config = load_config(checkout.root / "out/runtime.toml")
    for ending in ("bin", "b64"):
        wish = Wish(id_block=folder / f"id-block.{ending}", id_auth=folder / f"id-auth.{ending}")
        given = read(wish, config, expected_digest=launch_digest(checkout, vcpus=1, signature=0x800F12))
        assert given.id_block is not None
        assert (given.id_block.block, given.id_block.auth) == (block, auth)
        assert given.id_block.author_key is True


def test_a_given_digest_needs_no_artifacts(checkout: Checkout) -> None:
    shutil.rmtree(checkout.root / "out")
    line = checkout.idblock(*checkout.key).error()
    assert line == "out/runtime.toml: is not there; run ./doit artifacts:production"
    assert checkout.idblock(*checkout.key, "--digest", "ab" * 48).status == 0
    assert checkout.written()[0][:48] == b"\xab" * 48


def test_artifacts_that_are_not_those_of_the_recipes(checkout: Checkout) -> None:
    assert checkout.idblock(*checkout.key).status == 0
    for name, file, old, new in (
        ("recipes/guest.toml", "runtime.toml", 'min-abi = "0.0"', 'min-abi = "1.51"'),
        ("recipes/profiles/production.toml", "runtime.toml", "panic=-1", "panic=-2"),
    ):
        path = checkout.root / name
        good = path.read_text()
        assert old in good
        path.write_text(good.replace(old, new, 1))
        done = checkout.idblock(*checkout.key)
        assert done.status == 2
        assert done.error() == f"out/{file}: was built from other recipes; run ./doit artifacts:production"
        path.write_text(good)


@pytest.mark.parametrize("name", ["vmlinuz", "initramfs.cpio.zst", "OVMF.fd"])
def test_a_changed_artifact_is_not_signed(checkout: Checkout, name: str) -> None:
    path = checkout.root / "out" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    done = checkout.idblock(*checkout.key)
    assert done.status == 1
    assert done.error() == f"out/{name}: is not what runtime.toml names; run ./doit artifacts:production"
    assert not (checkout.root / "build/idblock").exists()


def test_firmware_that_cannot_be_measured_is_not_signed(checkout: Checkout) -> None:
    """Its digest is the one in runtime.toml, so this is the footer's check."""
    out = checkout.root / "out"
    good, config = (out / "OVMF.fd").read_bytes(), (out / "runtime.toml").read_text()
    digest = hashlib.sha256(good).hexdigest()
    for bad, says in (
        (good[4096:], f"out/OVMF.fd: firmware has {len(good) - 4096} bytes, wanted {len(good)}"),
        (good[:-48] + bytes(16) + good[-32:], "out/OVMF.fd: no OVMF footer 48 bytes before the end"),
    ):
        (out / "OVMF.fd").write_bytes(bad)
        assert digest in config
        (out / "runtime.toml").write_text(config.replace(digest, hashlib.sha256(bad).hexdigest()))
        done = checkout.idblock(*checkout.key)
        assert done.status == 1
        assert says in done.error()
    assert not (checkout.root / "build/idblock").exists()


def test_mistakes(checkout: Checkout) -> None:
    key = checkout.key
    for words, says in (
        ([], "--key: no key; give a PEM file with the P-384 private key that signs"),
        (["--key", "/no/such"], "/no/such: cannot be read: No such file or directory"),
        (["--key", "pyproject.toml"], "holds no private key in PEM; make one with openssl ecparam"),
        ([*key, "--author-key", "/dev/null"], "/dev/null: is not a regular file"),
        ([*key, "--profile", "x"], "--profile: 'x' is none of: builtin, debug, kata, production"),
        ([*key, "--vcpus", "0"], "--vcpus: '0' is no whole number from 1 to 255"),
        ([*key, "--vcpus", "256"], "--vcpus: '256' is no whole number from 1 to 255"),
        ([*key, "--svn", "-1"], "--svn: '-1' is no whole number from 0 to 4294967295"),
        ([*key, "--svn", "4294967296"], "--svn: '4294967296' is no whole number"),
        (
            [*key, "--cpu", "host"],
            "--cpu: CPU model 'host': its CPUID signature is not known, so no launch digest can be computed; known: ",
        ),
        ([*key, "--digest", "ab"], "--digest: 'ab' is no SHA-384 in 96 hexadecimal digits"),
        ([*key, "--family-id", "two words"], "--family-id: 'two words' is neither 1 to 16 ASCII"),
        ([*key, "--image-id", "0" * 31], "nor 32 hexadecimal digits"),
    ):
        done = checkout.idblock(*words)
        assert done.status == 2, words
        assert says in done.error()
    assert not (checkout.root / "build/idblock").exists()
