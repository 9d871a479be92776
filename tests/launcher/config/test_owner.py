# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  pytest hands fixtures over by name
"""What the owner gives at launch: exact command lines, refusals, and QEMU that reads all of it."""

import base64
import dataclasses
import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.launcher.conftest import Answer
from tests.launcher.launcher_kit import Out
from tools.launcher.base.errors import UserError
from tools.launcher.config.owner import Owner, Wish, read
from tools.launcher.config.runtime_config import load_config
from tools.launcher.guest.command_line import argv, build
from tools.launcher.guest.spec import Accel, Spec
from tools.launcher.guest.staging import Staging
from tools.launcher.host.cpuid import MemoryEncryption
from tools.launcher.host.facts import HostFacts
from tools.launcher.host.qemu_program import QemuProgram
from tools.launcher.measure import digest_file
from tools.pipeline.measure.id_keys import SigningKey
from tools.sev import id_block as idblock
from tools.sev.footer import Area, Footer
from tools.sev.id_block import Author, IdBlock, Identity
from tools.sev.modes import Mode

Call = Callable[..., Answer]
DIGEST = bytes(range(48))
HOST_DATA = bytes(range(32))
DH_CERT, SESSION = b"c" * 2084, b"s" * 128


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """Files as ./doit idblock and an SEV guest owner's tool write them; `folder` has a comma in its name."""

    folder: Path
    digest: bytes  # of the guest that is started, which the ID block is for

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    @property
    def block(self) -> bytes:
        return (self.folder / "id-block.bin").read_bytes()

    @property
    def auth(self) -> bytes:
        return (self.folder / "id-auth.bin").read_bytes()

    @property
    def pair(self) -> list[str]:
        return ["--id-block", f"{self.folder}/id-block.bin", "--id-auth", f"{self.folder}/id-auth.bin"]

    @property
    def legacy(self) -> list[str]:
        return ["--dh-cert", f"{self.folder}/godh.b64", "--session", f"{self.folder}/session.b64"]


def signed(*, author: bool, policy: int = 0x30000, digest: bytes = DIGEST) -> tuple[bytes, bytes]:
    """A real pair."""
    key, author_key = (SigningKey(ec.generate_private_key(ec.SECP384R1())) for _ in range(2))
    identity = Identity(family_id=bytes(16), image_id=bytes(16), svn=0)
    block = IdBlock(digest=digest, identity=identity, policy=policy).packed
    by = Author(key=author_key.public, id_key_signature=author_key.sign(key.public.packed))
    auth = idblock.id_auth(block_signature=key.sign(block), id_key=key.public, author=by if author else None)
    return block, auth


@pytest.fixture
def given(tmp_path: Path, out: Out) -> Given:
    config = load_config(out.config)
    own = digest_file.launch_digests(config, cmdline=config.cmdline)
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
    return lambda *words: call("show", "--config", out.config, "--qemu", standin, "--cbit", "51", *words)


def sev_object(answer: Answer) -> str:
    """The value of -object for the protection."""
    assert answer.status == 0, answer.err
    found = [line for line in answer.out.splitlines() if "-object" in line and "sev-" in line]
    assert len(found) == 1
    return found[0].removesuffix(" \\").strip().removeprefix("-object ")


SNP = "sev-snp-guest,id=snp0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on"
ES = "sev-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy=0x5,kernel-hashes=on,legacy-vm-type=off"
SEV = ES.replace("policy=0x5", "policy=0x1")


def test_id_block(shown: Callable[..., Answer], given: Given) -> None:
    answer = shown(*given.pair)
    pair = f",id-block={b64(given.block)},id-auth={b64(given.auth)}"
    assert sev_object(answer) == f"{SNP}{pair},author-key-enabled=on"
    # Nothing is said: the launch digest does not change by it.
    assert answer.err == ""
    block, auth = signed(author=False, digest=given.digest)
    given.write("id-block.bin", block)
    given.write("id-auth.bin", auth)
    assert sev_object(shown(*given.pair)) == f"{SNP},id-block={b64(block)},id-auth={b64(auth)}"


@pytest.mark.parametrize("encode", [base64.b64encode, base64.encodebytes, lambda data: data])
def test_id_block_in_base64_is_the_same(
    shown: Callable[..., Answer], given: Given, encode: Callable[[bytes], bytes]
) -> None:
    wanted = sev_object(shown(*given.pair))
    for name in ("id-block.bin", "id-auth.bin"):
        given.write(name, encode((given.folder / name).read_bytes()))
    assert sev_object(shown(*given.pair)) == wanted


def test_host_data(shown: Callable[..., Answer], given: Given) -> None:
    wanted = f"{SNP},host-data={b64(HOST_DATA)}"
    answer = shown("--host-data", HOST_DATA.hex())
    assert sev_object(answer) == wanted
    assert answer.err == ""
    assert sev_object(shown("--host-data", HOST_DATA.hex().upper())) == wanted
    assert sev_object(shown("--host-data", f"@{given.write('data', HOST_DATA)}")) == wanted
    both = sev_object(shown("--host-data", HOST_DATA.hex(), *given.pair))
    assert both.startswith(f"{SNP},id-block=")
    assert both.endswith(f",author-key-enabled=on,host-data={b64(HOST_DATA)}")


@pytest.mark.parametrize(("mode", "start"), [("sev-es", ES), ("sev", SEV)])
def test_session_files(shown: Callable[..., Answer], given: Given, out: Out, mode: str, start: str) -> None:
    out.data["sev"]["mode"] = mode
    out.write()
    answer = shown("--json", *given.legacy)
    values = [option[1] for option in json.loads(answer.out)["options"] if option[0] == "-object"]
    # A comma in a path is written twice for QEMU.
    folder = str(given.folder).replace(",", ",,")
    assert values[0] == f"{start},dh-cert-file={folder}/godh.b64,session-file={folder}/session.b64"
    assert answer.err == ""


def test_a_run_stages_what_was_checked(out: Out, given: Given, tmp_path: Path) -> None:
    """QEMU reads plain names in the private folder, whatever happens to the owner's files meanwhile."""
    config = load_config(out.config)
    config = dataclasses.replace(config, sev=dataclasses.replace(config.sev, mode=Mode.SEV_ES))
    wish = Wish(dh_cert=given.folder / "godh.b64", session=given.folder / "session.b64")
    checked = read(wish, config, expected_digest=None)
    given.write("godh.b64", b"changed afterwards")
    folder = tmp_path / "private"
    folder.mkdir()
    guest = Spec(
        config=config,
        qemu=QemuProgram(path="/usr/bin/qemu", version=(10, 0, 13), sandbox=True),
        firmware=Footer(hashes=Area(name="x", base=1, size=176), sev_es_reset=1, secret=None, sections=()),
        protection=Mode.SEV_ES,
        cbit=51,
        cmdline="x",
        owner=checked,
    )
    staging = Staging(guest, folder)
    words = argv(build(guest, accel=Accel.KVM, files=staging.files))
    assert f"{ES},dh-cert-file=dh-cert.b64,session-file=session.b64" in words
    # As QEMU reads them: the whole file, decoded.
    assert base64.b64decode((folder / "dh-cert.b64").read_bytes(), validate=True) == DH_CERT
    assert base64.b64decode((folder / "session.b64").read_bytes(), validate=True) == SESSION


def test_without_any_of_it_nothing_is_added(shown: Callable[..., Answer]) -> None:
    assert sev_object(shown()) == SNP
    assert sev_object(shown("--mode", "sev-es")) == ES
    assert Owner().snp_properties == ""


def refused(answer: Answer) -> str:
    assert (answer.status, answer.out) == (2, "")
    return answer.one_line()


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
    monkeypatch.setenv("STANDIN_LOG", str(log))
    words = ["run", "--config", out.config, "--qemu", standin, "--rootfs", tar]
    answer = call(*words, *given.pair[:2], "--", "true")
    assert "go together or not at all" in refused(answer)
    answer = call(*words, "--unprotected", "--host-data", HOST_DATA.hex(), "--", "true")
    assert "not with --unprotected" in refused(answer)
    assert not log.exists()


@pytest.mark.parametrize("mode", list(Mode))
def test_a_protected_run_hands_it_to_qemu(
    out: Out, call: Call, standin: Path, tar: Path, given: Given, monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    """With a host that would have everything, and the stand-in for QEMU and agent."""
    encryption = MemoryEncryption(sev=True, sev_es=True, snp=True, cbit=51, reduced_phys_bits=1)
    everything = {"sev": "Y", "sev_es": "Y", "sev_snp": "Y"}
    facts = HostFacts(kvm_error=None, sev_error=None, encryption=encryption, parameters=everything)
    monkeypatch.setattr("tools.launcher.host.facts.gather", lambda: facts)
    log = out.folder / "log"
    monkeypatch.setenv("STANDIN_LOG", str(log))
    words = given.pair if mode is Mode.SNP else given.legacy
    out.data["sev"]["mode"] = str(mode)
    out.write()
    run = ["run", "--config", out.config, "--qemu", standin, "--rootfs", tar]
    answer = call(*run, *words, "--", "echo", "hi")
    assert (answer.status, answer.out, answer.err) == (0, "hi\n", "")
    said = next(word for word in json.loads(log.read_text())["argv"] if "kernel-hashes" in word)
    pair = f",id-block={b64(given.block)},id-auth={b64(given.auth)},author-key-enabled=on"
    files = ",dh-cert-file=dh-cert.b64,session-file=session.b64"
    assert said == {Mode.SNP: SNP + pair, Mode.SEV_ES: ES + files, Mode.SEV: SEV + files}[mode]


# What QEMU 10 says when everything was understood and only the hardware is missing.
MISSING_HARDWARE = ("/dev/sev", "/dev/kvm", "KVM", "kvm", "SEV", "sev")
COMPLAINTS = (
    "not found", "Invalid parameter", "invalid option", "expects", "not a valid", "not equal", "exceeds",
    "Base64",
)  # fmt: skip


def run_qemu(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def qemu_words(out: Out, call: Call, qemu: Path, *words: object) -> list[str]:
    answer = call("show", "--json", "--config", out.config, "--qemu", qemu, "--cbit", "51", *map(str, words))
    assert answer.status == 0, answer.err
    argv: list[str] = json.loads(answer.out)["argv"]
    return argv


@pytest.fixture
def agent_socket(tmp_path: Path) -> object:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "agent.sock"))
        server.listen(1)
        yield server


@pytest.mark.usefixtures("agent_socket")
def test_qemu_reads_id_block_and_host_data(tmp_path: Path, out: Out, call: Call, qemu: Path, given: Given) -> None:
    words = qemu_words(out, call, qemu, *given.pair, "--host-data", HOST_DATA.hex())
    done = run_qemu(words, tmp_path)
    assert done.returncode not in (0, None)
    assert any(word in done.stderr for word in MISSING_HARDWARE), done.stderr
    for complaint in COMPLAINTS:
        assert complaint not in done.stderr
    # Controls: QEMU decodes and measures each of them, so what it accepted above was right.
    for old, new, says in (
        (b64(given.block), b64(given.block[:-1]), "parameter length of 95 not equal to 96"),
        (b64(given.auth), b64(given.auth + b"x"), "parameter length:ID_AUTH 4097 exceeds max of 4096"),
        (b64(HOST_DATA), b64(HOST_DATA[:-1]), "parameter length of 31 not equal to 32"),
        (b64(given.block), "!" + b64(given.block)[1:], "Base64 data contains invalid characters"),
        ("author-key-enabled=on", "author-key-enabled=maybe", "author-key-enabled"),
        ("host-data=", "host-date=", "host-date"),
    ):
        spoilt = [word.replace(old, new) for word in words]
        assert spoilt != words
        assert says in run_qemu(spoilt, tmp_path).stderr


@pytest.mark.parametrize("mode", ["sev-es", "sev"])
@pytest.mark.usefixtures("agent_socket")
def test_qemu_reads_the_session_options(
    tmp_path: Path, out: Out, call: Call, qemu: Path, given: Given, mode: str
) -> None:
    words = qemu_words(out, call, qemu, "--mode", mode, *given.legacy)
    done = run_qemu(words, tmp_path)
    assert done.returncode not in (0, None)
    assert any(word in done.stderr for word in MISSING_HARDWARE), done.stderr
    for complaint in COMPLAINTS:
        assert complaint not in done.stderr
    for old in ("dh-cert-file=", "session-file="):
        spoilt = [word.replace(old, f"x{old}") for word in words]
        assert spoilt != words
        assert f"x{old[:-1]}" in run_qemu(spoilt, tmp_path).stderr
