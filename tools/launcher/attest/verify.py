# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch verify`: an SNP attestation report or a launch measurement of SEV or SEV-ES, as a command.

Meant for the relying party's machine, not for the host that runs the guest. docs/attestation.md says which
checks the verdict "verified" takes, and why.
"""

import argparse
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from tools.launcher.attest.inputs import sized_file
from tools.launcher.attest.verify_measurement import verify_measurement
from tools.launcher.attest.verify_report import verify_report
from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui
from tools.launcher.cli.arguments import whole
from tools.launcher.cli.command import Command
from tools.sev.formats import DIGESTS_NAME
from tools.sev.limits import VCPUS_MAX
from tools.sev.modes import Mode

_MIN_TCB = re.compile(r"(fmc|bootloader|tee|snp|microcode)=([0-9]{1,3})")
_BYTES = {"--host-data": 32, "--report-data": 64, "--id-key-digest": 48, "--author-key-digest": 48,
          "--family-id": 16, "--image-id": 16}  # fmt: skip
_SNP_ONLY = (
    "vmpl", "host_data", "report_data", "report_data_file", "id_key_digest", "author_key_digest", "family_id",
    "image_id", "refuse_unknown", "min_svn", "min_tcb", "vcek", "vlek", "ask", "ark", "chain", "crl", "at",
)  # fmt: skip
_HEX = "HEX|@FILE"
_LEGACY_ONLY = ("tik", "mode", "api_major", "api_minor", "build")
_EXAMPLES = f"""examples:
  {NAME} verify report.bin --report-data @nonce --min-tcb bootloader=4,tee=0,snp=24,microcode=219 \\
         --vcek vcek.der --chain cert_chain.pem
      an SEV-SNP attestation report, 1184 bytes, as configfs-tsm gives it in the guest
  {NAME} verify --measurement launch.b64 --tik tik.bin --mode sev-es --api-major 1 --api-minor 55 --build 21
      the launch measurement of an SEV or SEV-ES guest (QEMU: query-sev-launch-measure, query-sev)

exit status: 0 verified; 1 something does not hold, or was not checked that must be; 2 a mistake in options or
files. "verified" takes, for a report: launch digest, policy, debugging off, VMPL, report data, minimum TCB,
signature, certificate, chain, root and dates. docs/attestation.md tells the whole way."""


def _add(sub: argparse.ArgumentParser) -> None:
    sub.usage = f"{NAME} verify REPORT [options]\n       {NAME} verify --measurement BASE64|FILE --tik FILE [options]"
    sub.add_argument("report", nargs="?", type=Path, metavar="REPORT", help="SEV-SNP attestation report")
    both = sub.add_argument_group("what is expected")
    both.add_argument("--config", type=Path, metavar="FILE", help="default: runtime.toml beside this program")
    both.add_argument("--digests", type=Path, metavar="FILE", help=f"default: {DIGESTS_NAME} beside the config")
    both.add_argument("--digest", metavar="HEX", help="one launch digest, instead of --digests")
    both.add_argument("--cpu", metavar="MODEL", help="only digests for this CPU model")
    both.add_argument("--cpus", type=whole(1, VCPUS_MAX), metavar="N", help="only digests for N vCPUs")
    both.add_argument("--policy", type=_policy, metavar="BITS", help="guest policy; default: the config's")
    both.add_argument("--json", action="store_true", help="as one JSON document")
    _add_snp(sub.add_argument_group("attestation report (SEV-SNP)"))
    legacy = sub.add_argument_group("launch measurement (SEV, SEV-ES)")
    legacy.add_argument("--measurement", metavar="BASE64|FILE", help="48 bytes in base64: HMAC and nonce")
    legacy.add_argument("--tik", type=Path, metavar="FILE", help="transport integrity key, 16 bytes")
    legacy.add_argument("--mode", choices=[str(Mode.SEV), str(Mode.SEV_ES)], help="default: the config's")
    for name, what in (("--api-major", "API version"), ("--api-minor", "API version"), ("--build", "build")):
        legacy.add_argument(name, type=_number(255), metavar="N", help=f"{what} of the host's firmware")


def _add_snp(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--report-data", type=_bytes("--report-data"), metavar=_HEX, help="64 bytes")
    group.add_argument("--report-data-file", type=Path, metavar="FILE", help="the report data is this file's SHA-512")
    group.add_argument(
        "--min-tcb",
        type=_min_tcb,
        metavar="PART=N,…",
        help="lowest levels accepted: bootloader, tee, snp, microcode; on Turin fmc too",
    )
    group.add_argument("--vmpl", type=_number(3), metavar="N", help="default: 0")
    group.add_argument("--host-data", type=_bytes("--host-data"), metavar=_HEX, help="32 bytes")
    group.add_argument("--id-key-digest", type=_bytes("--id-key-digest"), metavar=_HEX, help="48 bytes")
    group.add_argument("--author-key-digest", type=_bytes("--author-key-digest"), metavar=_HEX, help="48 bytes")
    group.add_argument("--family-id", type=_bytes("--family-id"), metavar=_HEX, help="16 bytes")
    group.add_argument("--image-id", type=_bytes("--image-id"), metavar=_HEX, help="16 bytes")
    group.add_argument(
        "--refuse-unknown",
        action="store_true",
        default=None,
        help="not verified when reserved bits are set, whose meaning this program does not know",
    )
    group.add_argument("--min-svn", type=_number((1 << 32) - 1), metavar="N", help="lowest guest SVN accepted")
    leaf = group.add_mutually_exclusive_group()
    leaf.add_argument("--vcek", type=Path, metavar="FILE", help="the chip's certificate, PEM or DER")
    leaf.add_argument("--vlek", type=Path, metavar="FILE", help="the cloud provider's certificate")
    group.add_argument("--ask", type=Path, metavar="FILE", help="AMD's intermediate certificate (ASK or ASVK)")
    group.add_argument("--ark", type=Path, metavar="FILE", help="the root certificate that you trust")
    group.add_argument(
        "--chain", type=Path, metavar="FILE", help="both, as AMD's cert_chain; takes no roots but AMD's own"
    )
    group.add_argument("--crl", type=Path, metavar="FILE", help="AMD's list of revoked certificates")
    group.add_argument("--at", type=_date, metavar="DATE", help="validity of certificates then; default: now")


def _number(high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,10}", text) is None or int(text) > high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {high}")
        return int(text)

    return convert


def _policy(text: str) -> int:
    if re.fullmatch(r"0x[0-9a-fA-F]{1,16}|[0-9]{1,20}", text) is None or (value := int(text, 0)) >= 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no policy: give its bits, as in 0x30000")
    return value


def _bytes(option: str) -> Callable[[str], bytes]:
    size = _BYTES[option]

    def convert(text: str) -> bytes:
        if text.startswith("@"):
            return sized_file(Path(text[1:]), size, where=f"{option} {text}")
        if re.fullmatch(rf"[0-9a-fA-F]{{{2 * size}}}", text) is None:
            raise argparse.ArgumentTypeError(
                f"must be {2 * size} hexadecimal digits, has {len(text)} characters; "
                f"@FILE takes {size} bytes from a file"
            )
        return bytes.fromhex(text)

    return convert


def _min_tcb(text: str) -> dict[str, int]:
    levels: dict[str, int] = {}
    for part in text.split(","):
        match = _MIN_TCB.fullmatch(part)
        if match is None or int(match[2]) > 255 or match[1] in levels:
            raise argparse.ArgumentTypeError(
                f"{part!r} is no level, or stands twice: write bootloader=4,tee=0,snp=24,microcode=219"
            )
        levels[match[1]] = int(match[2])
    return levels


def _date(text: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date, as in 2026-11-25") from None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


def _run(options: argparse.Namespace, ui: Ui) -> int:
    if (options.report is None) == (options.measurement is None):
        raise UserError("give either an attestation report or --measurement", hint=f"see {NAME} verify --help")
    foreign = _LEGACY_ONLY if options.measurement is None else _SNP_ONLY
    for name in foreign:
        if getattr(options, name) is not None:
            what = "a launch measurement" if options.measurement is None else "an attestation report"
            raise UserError(f"--{name.replace('_', '-')} belongs to {what}")
    if options.digest is not None and (options.digests or options.cpu or options.cpus):
        raise UserError("--digest stands for itself: leave out --digests, --cpu and --cpus")
    return verify_report(options, ui) if options.measurement is None else verify_measurement(options, ui)


COMMAND = Command(
    name="verify",
    text="check an attestation report or a launch measurement against what is expected",
    add=_add,
    run=_run,
    examples=_EXAMPLES,
)
