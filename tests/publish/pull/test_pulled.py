# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The real artifacts, pulled: they boot with their own sev-launch, and their digests were computed, not believed."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.launcher.attest.attestation_kit import TCB, Draft
from tests.launcher.attest.verify_kit import NONCE, Root
from tests.publish import kit, people
from tests.publish.people import World
from tools.attack.guests import roots
from tools.attack.guests.run import Guest
from tools.sev.formats import SUMS_NAME

WHY = "the artifacts are not of this small checkout"


@pytest.fixture
def real(make_world: Callable[..., World], artifacts: Path, tmp_path: Path) -> Callable[..., World]:
    """real(): out/ published and endorsed as it is, or with other contents in some files."""

    def make(changes: Mapping[str, Callable[[str], str]] = {}) -> World:
        small = people.small(tmp_path / "checkout")
        folder = kit.empty(small.folder)
        shutil.copytree(artifacts, folder, dirs_exist_ok=True)
        for name, change in changes.items():
            (folder / name).write_text(change((folder / name).read_text()))
        sums = (folder / SUMS_NAME).read_text().splitlines()
        lines = [f"{kit.sha256((folder / line[66:]).read_bytes())}  {line[66:]}\n" for line in sums]
        (folder / SUMS_NAME).write_text("".join(lines))
        made = make_world(small)
        made.publish(although=WHY)
        made.endorse("alice", "bob")
        return made

    return make


def test_what_was_pulled_boots(real: Callable[..., World], qemu: Path, busybox: Path, tmp_path: Path) -> None:
    made = real()
    made.refused("says that it was published although")
    made.accepted(policy=made.policy(although=True))
    pulled = made.folder / "pulled"
    root = roots.tar(roots.folder(busybox, tmp_path / "root/busybox"), tmp_path / "busybox.tar")
    done = Guest(launcher=pulled / "sev-launch", qemu=qemu, rootfs=root).sh("id -u; exit 7")
    assert (done.returncode, done.stdout) == (7, b"0\n"), done
    subprocess.run(["sha256sum", "--quiet", "-c", SUMS_NAME], cwd=pulled, check=True)


def other_digest(text: str) -> str:
    """runtime.toml with another launch digest of SNP."""
    head, mark, rest = text.partition('snp = "')
    assert mark
    return head + mark + ("0" if rest[0] != "0" else "1") + rest[1:]


def other_table(text: str) -> str:
    """launch-digests.json with another digest for one model."""
    document = json.loads(text)
    counts = document["modes"]["snp"]["digests"]["EPYC-Milan"]
    counts["4"] = counts["5"]
    return json.dumps(document)


@pytest.mark.parametrize(
    ("name", "change"),
    [("runtime.toml", other_digest), ("launch-digests.json", other_table), ("runtime-network.toml", other_digest)],
)
def test_a_wrong_launch_digest_that_everybody_signed(
    real: Callable[..., World], name: str, change: Callable[[str], str]
) -> None:
    """test_what_was_pulled_boots() is the control."""
    made = real({name: change})
    said = made.refused("says .*computed is|says .*, must be", policy=made.policy(although=True))
    assert name in said
    assert str(made.folder) not in said


def other_schema(text: str) -> str:
    """runtime.toml as another version of sev-launch reads it."""
    return re.sub("(?m)^schema = .*$", "schema = 1000", text)


def test_a_config_of_another_version(real: Callable[..., World]) -> None:
    """What this program cannot compute, it says; the bytes are the endorsed ones."""
    made = real({"runtime.toml": other_schema})
    said = made.accepted(policy=made.policy(although=True))
    assert "runtime.toml: its schema is 1000" in said
    assert "launch digests were not computed here" in said


# ── verify ──


def test_verify_by_the_same_policy(real: Callable[..., World], tmp_path: Path) -> None:
    made = real()
    policy = made.policy(although=True)
    made.accepted(policy=policy)
    pulled = made.folder / "pulled"
    words = report_of(pulled, tmp_path)

    def verify(*more: str | Path) -> tuple[int, str]:
        argv = [pulled / "sev-launch", "verify", *words, "--state", made.folder / "state", *more]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    status, said = verify("--pull-policy", policy)
    assert (status, "by alice, bob" in said) == (0, True), said
    three = made.policy(although=True, endorsers=3)
    status, said = verify("--pull-policy", three)
    assert (status, "endorsed by 2 of the 3 principals" in said) == (1, True), said
    assert "not verified: endorsement does not hold" in said
    made.endorse("vendor", out=str(made.folder / "vendor.json"))
    status, said = verify("--pull-policy", three, "--statement", made.folder / "vendor.json")
    assert status == 0, said
    # Another artifact beside the same statements.
    policy = made.policy(although=True)
    digests = pulled / "launch-digests.json"
    digests.write_text(digests.read_text() + "\n")
    status, said = verify("--pull-policy", policy)
    assert (status, "is not the endorsed artifact's" in said) == (1, True), said
    status, said = verify("--pull-policy", policy, "--digest", "0" * 96)
    assert (status, "leave out --digest" in said) == (2, True), said
    status, said = verify()
    assert (status, "--state belong to --pull-policy" in said) == (2, True), said


def report_of(pulled: Path, folder: Path) -> list[str | Path]:
    """A report of the unbound guest, with certificates, and what verify takes besides."""
    root = Root()
    digests = json.loads((pulled / "launch-digests.json").read_bytes())["modes"]["snp"]["digests"]
    policy = 0x30000
    draft = Draft(measurement=bytes.fromhex(digests["EPYC-Milan"]["4"]), policy=policy, report_data=NONCE)
    files = {"report.bin": draft.raw(root.leaf_key), "vcek": root.vcek().der, "ask": root.ask.der, "ark": root.ark.der}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    levels = ",".join(f"{part}={level}" for part, level in TCB.items())
    words: list[str | Path] = [folder / "report.bin", "--unbound", "--report-data", NONCE.hex(), "--min-tcb", levels]
    words += ["--policy", hex(policy)]
    for name in ("vcek", "ask", "ark"):
        words += [f"--{name}", folder / name]
    return words
