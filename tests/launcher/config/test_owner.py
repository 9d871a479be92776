# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  pytest hands fixtures over by name
"""What the owner gives at launch: exact command lines, and what a run hands to QEMU."""

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.config.owner_kit import (
    DH_CERT,
    ES,
    HOST_DATA,
    SESSION,
    SEV,
    SNP,
    Call,
    Given,
    b64,
    sev_object,
    signed,
)
from tests.launcher.conftest import OWN, Answer
from tests.launcher.launcher_kit import Out
from tools.launcher.config.owner import Owner, Wish, read
from tools.launcher.config.runtime_config import load_config
from tools.launcher.guest.binding import UNBOUND
from tools.launcher.guest.command_line import argv, build
from tools.launcher.guest.spec import Accel, Spec
from tools.launcher.guest.staging import Staging
from tools.launcher.host.cpuid import MemoryEncryption
from tools.launcher.host.facts import HostFacts
from tools.launcher.host.qemu_program import ENVIRONMENT, QemuProgram
from tools.sev.footer import Area, Footer
from tools.sev.modes import Mode


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
        binding=UNBOUND,
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
    monkeypatch.setitem(ENVIRONMENT, "STANDIN_LOG", str(log))
    words = given.pair if mode is Mode.SNP else given.legacy
    out.data["sev"]["mode"] = str(mode)
    out.write()
    run = ["run", "--unbound", "--config", out.config, "--qemu", standin, "--qemu-user", OWN, "--rootfs", tar]
    answer = call(*run, *words, "--", "echo", "hi")
    assert (answer.status, answer.out) == (0, "hi\n")
    assert "this host chooses what runs" in answer.one_line()
    assert "open to its host" not in answer.err
    said = next(word for word in json.loads(log.read_text())["argv"] if "kernel-hashes" in word)
    pair = f",id-block={b64(given.block)},id-auth={b64(given.auth)},author-key-enabled=on"
    files = ",dh-cert-file=dh-cert.b64,session-file=session.b64"
    assert said == {Mode.SNP: SNP + pair, Mode.SEV_ES: ES + files, Mode.SEV: SEV + files}[mode]


def test_a_protected_run_says_what_its_policy_leaves_open(
    out: Out, call: Call, standin: Path, tar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encryption = MemoryEncryption(sev=True, sev_es=True, snp=True, cbit=51, reduced_phys_bits=1)
    facts = HostFacts(kvm_error=None, sev_error=None, encryption=encryption, parameters={"sev": "Y"})
    monkeypatch.setattr("tools.launcher.host.facts.gather", lambda: facts)
    out.data["sev"] |= {"mode": "sev", "sev": {"policy": 0x9}}
    out.write()
    run = ["run", "--unbound", "--config", out.config, "--qemu", standin, "--qemu-user", OWN, "--rootfs", tar]
    answer = call(*run, "--quiet", "--", "echo", "hi")
    assert answer.status == 0
    assert (
        "mode sev leaves the guest open to its host: key-sharing: a guest of the host's own can be given" in answer.err
    )
