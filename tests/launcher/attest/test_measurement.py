# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch verify --measurement`: launch measurements of SEV and SEV-ES; mistakes of both forms."""

import base64
import contextlib
import hashlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from tests.launcher.attest.attestation_kit import Draft
from tests.launcher.attest.verify_kit import Desk, digests_document
from tools.launcher.attest.measurement import Measurement, Platform, decode, expected_mac
from tools.sev.formats import DIGESTS_SCHEMA
from tools.sev.hashes_table import hashes_table

# AMDESE/sev-tool, src/tests.cpp, test_calc_measurement, and its readme (Apache-2.0).
AMD_TIK = bytes.fromhex("66320db73158a35a255d051758e95ed4")
AMD_DIGEST = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
AMD_NONCE = bytes.fromhex("4fbe0bedbad6c86ae8f68971d103e554")
AMD_MAC = bytes.fromhex("6faab2daae389bcd3405a05d6cafe33c0414f7bedd0bae19ba5f38b7fd1664ea")
AMD_BLOB = base64.b64encode(AMD_MAC + AMD_NONCE).decode()
AMD_OPTIONS = {"api-major": "0", "api-minor": "18", "build": "15", "policy": "0", "digest": AMD_DIGEST}

# What virt-qemu-sev-validate of libvirt 9.0.0 (Debian 12) accepts for this firmware, with the kernel, initrd,
# command line and options of the test; with another policy, command line or build it refuses.
LIBVIRT_FIRMWARE = b"firmware" * 512
LIBVIRT_BLOB = "nSZeqVRje9HyrsWCkIf3GASOY7GcjztOfUD0j7p4R1YgISIjJCUmJygpKissLS4v"

TIK, NONCE = bytes(range(16)), bytes(range(50, 66))
PLATFORM = Platform(api_major=1, api_minor=55, build=21)


def words(options: dict[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def amd(desk: Desk, blob: str = AMD_BLOB, tik: bytes = AMD_TIK, **changes: str) -> Any:
    """The known answer of AMD's tool, with other options."""
    path = desk.write("tik.bin", tik)
    options = AMD_OPTIONS | {name.replace("_", "-"): value for name, value in changes.items()}
    return desk.call(
        "verify", "--config", desk.config, "--unbound", "--measurement", blob, "--tik", path, *words(options)
    )


def blob(digest: bytes, policy: int) -> str:
    mac = expected_mac(tik=TIK, platform=PLATFORM, policy=policy, digest=digest, mnonce=NONCE)
    return base64.b64encode(mac + NONCE).decode()


def ours(desk: Desk, digest: bytes, policy: int, *more: str) -> Any:
    """A measurement as our firmware would give it, against config and launch-digests.json."""
    path = desk.write("tik.bin", TIK)
    base = [
        "--config",
        str(desk.config),
        "--tik",
        str(path),
        "--api-major",
        "1",
        "--api-minor",
        "55",
        "--build",
        "21",
        "--unbound",
    ]
    return desk.call("verify", "--measurement", blob(digest, policy), *base, *more)


def test_the_known_answer_of_amds_tool() -> None:
    platform = Platform(api_major=0, api_minor=0x12, build=0x0F)
    digest = bytes.fromhex(AMD_DIGEST)
    mac = expected_mac(tik=AMD_TIK, platform=platform, policy=0, digest=digest, mnonce=AMD_NONCE)
    assert mac == AMD_MAC


def test_what_libvirts_validator_accepts(desk: Desk) -> None:
    table = hashes_table(
        kernel_sha256=hashlib.sha256(b"kernel").digest(),
        initrd_sha256=hashlib.sha256(b"initrd").digest(),
        cmdline="console=ttyS0",
    )
    digest = hashlib.sha256(LIBVIRT_FIRMWARE + table).hexdigest()
    options = {"api_major": "1", "api_minor": "55", "build": "21", "policy": "0x01370001", "digest": digest}
    assert amd(desk, LIBVIRT_BLOB, TIK, **options).status == 0
    for name, other in (("policy", "1"), ("build", "20"), ("digest", "00" * 32)):
        assert amd(desk, LIBVIRT_BLOB, TIK, **options | {name: other}).status == 1


def test_a_second_computation_agrees() -> None:
    """HMAC as RFC 2104 writes it, over the bytes as the SEV API writes them; each input in its place."""
    key = TIK.ljust(64, b"\0")
    inner, outer = bytes(b ^ 0x36 for b in key), bytes(b ^ 0x5C for b in key)
    message = b"\x04\x01\x37\x15" + b"\x05\x00\x37\x01" + b"\xd1" * 32 + NONCE
    expected = hashlib.sha256(outer + hashlib.sha256(inner + message).digest()).digest()
    mac = expected_mac(tik=TIK, platform=PLATFORM, policy=0x01370005, digest=b"\xd1" * 32, mnonce=NONCE)
    assert mac == expected


def test_the_known_answer_is_verified(desk: Desk) -> None:
    answer = amd(desk)
    assert answer.status == 0
    assert answer.out.splitlines()[0].startswith("ok           launch measurement  of launch digest e3b0c442")
    assert answer.out.splitlines()[-1] == "launch measured"
    # Policy 0 lets the host debug the guest: said, since the user expects it.
    assert "the host can read and change" in answer.err


@pytest.mark.parametrize(
    "changes",
    [
        {"api_major": "1"},
        {"api_minor": "19"},
        {"build": "14"},
        {"policy": "1"},
        {"digest": AMD_DIGEST[:-1] + "4"},
        {"tik": AMD_TIK[:-1] + b"\0"},
        {"blob": base64.b64encode(AMD_MAC + AMD_NONCE[:-1] + b"\0").decode()},
        {"blob": base64.b64encode(AMD_MAC[:-1] + b"\0" + AMD_NONCE).decode()},
    ],
)
def test_each_input_counts(desk: Desk, changes: dict[str, Any]) -> None:
    answer = amd(desk, **changes)
    assert answer.status == 1
    assert answer.out.startswith("FAILED       launch measurement")
    assert answer.out.endswith("\nnot verified: launch measurement does not hold\n")


def test_digests_of_the_file(desk: Desk) -> None:
    sev = ours(desk, b"\x5e" * 32, 0x3B, "--mode", "sev")
    assert sev.status == 0, sev.err
    assert "any CPU model and vCPU count" in sev.out
    legacy = bytes((2, 2)) * 16
    es = ours(desk, legacy, 0x3F, "--mode", "sev-es")
    assert es.status == 0, es.err
    assert "Genoa, 2 vCPUs, legacy-vm-type=on" in es.out
    off = ours(desk, b"\xee" + legacy[1:], 0x3F, "--policy", "0x3f")
    assert off.status == 0, off.err
    assert "Genoa, 2 vCPUs, legacy-vm-type=off" in off.out
    assert ours(desk, legacy, 0x3F, "--mode", "sev-es", "--cpus", "1").status == 1
    assert ours(desk, b"\x5e" * 32, 3, "--mode", "sev").status == 1


def test_what_a_policy_leaves_open_is_said(desk: Desk) -> None:
    """QEMU's default for plain SEV; a closed one gives none of these words."""
    key, sent = "can be given this guest's key", "can have the guest sent elsewhere"
    answer = ours(desk, b"\x5e" * 32, 1, "--mode", "sev", "--policy", "1")
    assert answer.status == 0
    assert f"open to the host: key-sharing: a guest of the host's own {key}" in answer.out
    assert f"open to the host: send: the host {sent}; to a key of its own too" in answer.out
    assert answer.err.endswith("the expected policy leaves this guest open to its host: key-sharing, send\n")
    inside = ours(desk, b"\x5e" * 32, 0x33, "--mode", "sev", "--policy", "0x33")
    assert inside.status == 0
    assert sent in inside.out
    assert "a key of its own" not in inside.out
    closed = ours(desk, b"\x5e" * 32, 0x3B, "--mode", "sev")
    assert closed.status == 0
    assert "open to the host" not in closed.out + closed.err
    # Of a policy that the guest was not started with nothing is said.
    other = ours(desk, b"\x5e" * 32, 0x3B, "--mode", "sev", "--policy", "1")
    assert (other.status, "open to the host" in other.out) == (1, False)


def test_a_measurement_in_a_file(desk: Desk) -> None:
    path = desk.write("launch.b64", AMD_BLOB.encode() + b"\n")
    assert amd(desk, str(path)).status == 0
    path.write_bytes(base64.b64decode(AMD_BLOB))
    assert amd(desk, str(path)).status == 0
    path.write_bytes(b"\xff" * 64)
    answer = amd(desk, str(path))
    assert answer.status == 2
    assert "launch.b64: has 64 bytes, not 48" in answer.one_line()


def test_as_json(desk: Desk) -> None:
    tik = desk.write("tik.bin", AMD_TIK)
    answer = desk.call("verify", "--unbound", "--measurement", AMD_BLOB, "--tik", tik, *words(AMD_OPTIONS), "--json")
    document = json.loads(answer.out)
    assert (document["verdict"], document["mode"], document["policy"]) == ("launch measured", "sev", 0)
    assert document["measurement"] == {"hmac": AMD_MAC.hex(), "mnonce": AMD_NONCE.hex()}
    assert document["platform"] == {"api": "0.18", "build": 15}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"blob": "AAAA"}, "has 3 bytes in base64"),
        ({"blob": "no base64!"}, "is no base64, and names no file"),
        ({"blob": "a\0b"}, "is no base64"),
        ({"tik": b"short"}, "has 5 bytes, not 16"),
        ({"tik": bytes(32)}, "has 32 bytes, not 16"),
        ({"digest": "00" * 48}, "a launch digest of sev has 64 hexadecimal digits"),
        ({"policy": "0x100000000"}, "no SEV policy"),
        ({"policy": "x"}, "is no policy"),
        ({"policy": "5", "mode": "sev"}, "not one of sev"),
        ({"policy": "1", "mode": "sev-es"}, "not one of sev-es"),
        ({"api_major": "256"}, "no whole number from 0 to 255"),
        ({"vcek": "x"}, "--vcek belongs to an attestation report"),
        ({"report_data": "00" * 64}, "--report-data belongs to an attestation report"),
        ({"vmpl": "0"}, "--vmpl belongs to an attestation report"),
        ({"cpu": "Milan"}, "leave out --digests"),
    ],
)
def test_mistakes(desk: Desk, changes: dict[str, Any], said: str) -> None:
    answer = amd(desk, **changes)
    assert (answer.status, answer.out) == (2, "")
    assert said in answer.one_line()


def test_mistakes_of_form(desk: Desk) -> None:
    for given_words, said in (
        ([], "either an attestation report or --measurement"),
        (["x", "--measurement", AMD_BLOB], "either an attestation report or --measurement"),
        (["--measurement", AMD_BLOB], "needs --tik, --api-major, --api-minor, --build too"),
        (["x", "--tik", "x"], "--tik belongs to a launch measurement"),
        (["x", "--mode", "sev"], "--mode belongs to a launch measurement"),
        (["no-such-file"], "no-such-file: No such file"),
        (["/"], "Is a directory"),
        (["x", "y"], "unrecognized arguments: y"),
        (["x", "--report-data", "00"], "must be 128 hexadecimal digits"),
        (["x", "--host-data", "zz" * 32], "must be 64 hexadecimal digits"),
        (["x", "--host-data", "@no-such-file"], "no-such-file: No such file"),
        (["x", "--host-data", "@"], "Is a directory"),
        (["x", "--min-tcb", "snp=256"], "is no level"),
        (["x", "--min-tcb", "snp=1,snp=2"], "stands twice"),
        (["x", "--min-tcb", ""], "is no level"),
        (["x", "--vmpl", "4"], "no whole number from 0 to 3"),
        (["x", "--at", "yesterday"], "is no date"),
        (["x", "--policy", "0x1" + "0" * 16], "is no policy"),
        (["x", "--policy", str(1 << 64)], "is no policy"),
        (["x", "--cpus", "0"], "no whole number from 1 to 255"),
        (["x", "--json", "--", "y"], "unrecognized arguments"),
    ):
        answer = desk.call("verify", *given_words)
        assert (answer.status, answer.out) == (2, ""), given_words
        assert said in answer.one_line(), given_words


def test_mistakes_with_a_report(desk: Desk) -> None:
    report = Draft()
    assert "exclude each other" in desk.refused(report, "--report-data-file", "x")
    assert "must name exactly bootloader, tee, snp, microcode" in desk.refused(report, "--min-tcb", "snp=1")
    assert "must name exactly" in desk.refused(report, "--min-tcb", "fmc=0,bootloader=4,tee=0,snp=24,microcode=1")
    assert "a launch digest of snp has 96" in desk.refused(report, "--digest", "00" * 32)
    assert "no digest for CPU model 'Rome'; it has Genoa, Milan" in desk.refused(report, "--cpu", "Rome")
    assert "no digest for 65 vCPUs; it has 1 to 64" in desk.refused(report, "--cpus", "65")
    assert "No such file" in desk.refused(report, "--digests", "none.json")
    assert "no attestation report" in desk.refused(b"")


def test_the_configs_mode_is_the_default(desk: Desk) -> None:
    tik = desk.write("tik.bin", TIK)
    base = ["--unbound", "--tik", str(tik), "--api-major", "1", "--api-minor", "55", "--build", "21"]
    answer = desk.call("verify", "--measurement", blob(b"\x5e" * 32, 0x3B), "--config", desk.config, *base)
    assert answer.status == 2
    assert "the config's mode is snp" in answer.one_line()
    text = desk.config.read_text().replace('mode = "snp"', 'mode = "sev"')
    desk.config.write_text(text)
    answer = desk.call("verify", "--measurement", blob(b"\x5e" * 32, 0x3B), "--config", desk.config, *base)
    assert answer.status == 0


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["schema"], 1, "schema is 1"),
        (["schema"], True, "schema is True"),
        (["schema"], None, "schema is None"),
        (["modes"], [], "modes: missing, or no object"),
        (["modes"], None, "modes: missing, or no object"),
        (["cpu_models"], None, "cpu_models: missing, or no object"),
        (["cpu_models", "Milan"], [], "cpu_models.Milan: missing, or no object"),
        (["cpu_models", "Milan"], {"qemu_models": [1]}, "cpu_models.Milan.qemu_models: no list"),
        (["modes", "snp"], None, "snp: missing, or no object"),
        (["modes", "snp", "digests"], "x", "snp.digests: missing, or no object"),
        (["modes", "snp", "digests"], {}, "no digest in it"),
        (["modes", "snp", "digests", "Milan"], 1, "snp.digests.Milan: missing, or no object"),
        (
            ["modes", "snp", "digests", "Milan", "0"],
            "00" * 48,
            "snp.digests.Milan.0: the key is no vCPU count",
        ),
        (["modes", "snp", "digests", "Milan", "01"], "00" * 48, "Milan.01: the key is no vCPU count"),
        (["modes", "snp", "digests", "Milan", "1"], "00" * 32, "Milan.1: must be 96 lower-case"),
        (["modes", "snp", "digests", "Milan", "1"], "FF" * 48, "Milan.1: must be 96 lower-case"),
        (["modes", "snp", "digests", "Milan", "1"], 5, "Milan.1: must be 96 lower-case"),
    ],
)
def test_a_damaged_file_of_digests(desk: Desk, path: list[str], value: Any, said: str) -> None:
    document: Any = digests_document()
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    file = desk.write("digests.json", json.dumps(document).encode())
    assert said in desk.refused(Draft(), "--digests", file)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b"[]", "no JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"schema": 2, "schema": 2}', "stands twice"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_no_file_of_digests_at_all(desk: Desk, text: bytes, said: str) -> None:
    file = desk.write("digests.json", text)
    assert said in desk.refused(Draft(), "--digests", file)


_JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.text(max_size=5)
    | strategies.just("00" * 48),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(
            strategies.sampled_from(["schema", "modes", "cpu_models", "snp", "digests", "Milan", "1", "x"]),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=_JSON, cut=strategies.integers(0, 5))
def test_no_json_makes_a_traceback(desk: Desk, document: Any, cut: int) -> None:
    if isinstance(document, dict) and cut < 3:
        document["schema"] = DIGESTS_SCHEMA
    text = json.dumps(document)
    file = desk.write("digests.json", text[: len(text) - (cut == 5)].encode())
    answer = desk.call("verify", *desk.words(Draft()), "--digests", file)
    assert answer.status in (1, 2)
    assert "Traceback" not in answer.err


@given(strategies.text(max_size=80) | strategies.binary(max_size=60).map(lambda data: base64.b64encode(data).decode()))
def test_any_text_is_a_measurement_or_a_refusal(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(decode(text), Measurement)
