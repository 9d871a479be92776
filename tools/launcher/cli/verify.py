# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch verify`: an SNP attestation report or a launch measurement of SEV or SEV-ES, as a command.

Meant for the relying party's machine, not for the host that runs the guest. docs/attestation.md says which
checks the verdict "verified" takes, and why.
"""

import re
from datetime import UTC, datetime
from pathlib import Path

from tools.launcher.attest.inputs import sized_file
from tools.launcher.attest.verify_measurement import verify_measurement
from tools.launcher.attest.verify_report import verify_report
from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import NAME, Ui
from tools.launcher.base.values import Values
from tools.launcher.guest.binding import read_document
from tools.launcher.options.arguments import CONFIG, JSON, NONCE, cmdline_text, default_config, whole
from tools.launcher.options.parser import Group, Option, Syntax
from tools.sev.formats import DIGESTS_NAME
from tools.sev.limits import VCPUS_MAX
from tools.sev.modes import Mode

_MIN_TCB = re.compile(r"(fmc|bootloader|tee|snp|microcode)=([0-9]{1,3})")
_EXAMPLES = f"""examples:
  {NAME} verify report.bin --workload workload.json --nonce @nonce --domain workload \\
         --min-tcb bootloader=4,tee=0,snp=24,microcode=219 --vcek vcek.der --chain cert_chain.pem
      an SEV-SNP attestation report, 1184 bytes, as configfs-tsm gives it in the guest
  {NAME} verify --measurement launch.b64 --workload workload.json --tik tik.bin \\
         --mode sev-es --api-major 1 --api-minor 55 --build 21
      the launch measurement of an SEV or SEV-ES guest (QEMU: query-sev-launch-measure, query-sev)

exit status: 0 verified; 1 something does not hold, or was not checked that must be; 2 a mistake in options or
files. "verified" takes, for a report: launch digest, workload, policy, debugging off, VMPL, report data, minimum
TCB, signature, certificate, chain, root and dates. docs/attestation.md tells the whole way."""


def _policy(text: str) -> int:
    if re.fullmatch(r"0x[0-9a-fA-F]{1,16}|[0-9]{1,20}", text) is None or (value := int(text, 0)) >= 1 << 64:
        raise ValueError(f"{text!r} is no policy: give its bits, as in 0x30000")
    return value


def _bytes(option: str, size: int) -> Option:
    """An option that takes so many bytes, as digits or from a file."""

    def convert(text: str) -> bytes:
        if text.startswith("@"):
            return sized_file(Path(text[1:]), size, where=f"{option} {text}")
        if re.fullmatch(rf"[0-9a-fA-F]{{{2 * size}}}", text) is None:
            raise ValueError(
                f"must be {2 * size} hexadecimal digits, has {len(text)} characters; "
                f"@FILE takes {size} bytes from a file"
            )
        return bytes.fromhex(text)

    return Option(option, "HEX|@FILE", text=f"{size} bytes", convert=convert)


def _min_tcb(text: str) -> dict[str, int]:
    levels: dict[str, int] = {}
    for part in text.split(","):
        match = _MIN_TCB.fullmatch(part)
        if match is None or int(match[2]) > 255 or match[1] in levels:
            raise ValueError(f"{part!r} is no level, or stands twice: write bootloader=4,tee=0,snp=24,microcode=219")
        levels[match[1]] = int(match[2])
    return levels


def _date(text: str) -> datetime:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no date, as in 2026-11-25") from None
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


_REPORT = Group(
    "attestation report (SEV-SNP)",
    _bytes("--report-data", 64),
    Option("--report-data-file", "FILE", text="the report data is this file's SHA-512", convert=Path),
    NONCE,
    Option("--domain", choices=("workload", "host"), text="with --nonce: who asked the agent for the report"),
    Option(
        "--min-tcb",
        "PART=N,…",
        text="lowest levels accepted: bootloader, tee, snp, microcode; on Turin fmc too",
        convert=_min_tcb,
    ),
    Option("--vmpl", "N", text="default: 0", convert=whole(0, 3)),
    _bytes("--host-data", 32),
    _bytes("--id-key-digest", 48),
    _bytes("--author-key-digest", 48),
    _bytes("--family-id", 16),
    _bytes("--image-id", 16),
    Option(
        "--refuse-unknown",
        text="not verified when reserved bits are set, whose meaning this program does not know",
    ),
    Option("--min-svn", "N", text="lowest guest SVN accepted", convert=whole(0, (1 << 32) - 1)),
    Option("--vcek", "FILE", text="the chip's certificate, PEM or DER", convert=Path),
    Option("--vlek", "FILE", text="the cloud provider's certificate", convert=Path),
    Option("--ask", "FILE", text="AMD's intermediate certificate (ASK or ASVK)", convert=Path),
    Option("--ark", "FILE", text="the root certificate that you trust", convert=Path),
    Option("--chain", "FILE", text="both, as AMD's cert_chain; takes no roots but AMD's own", convert=Path),
    Option("--crl", "FILE", text="AMD's list of revoked certificates", convert=Path),
    Option("--at", "DATE", text="validity of certificates then; default: now", convert=_date),
)
_MEASUREMENT = Group(
    "launch measurement (SEV, SEV-ES)",
    Option("--measurement", "BASE64|FILE", text="48 bytes in base64: HMAC and nonce"),
    Option("--tik", "FILE", text="transport integrity key, 16 bytes", convert=Path),
    Option("--mode", choices=(str(Mode.SEV), str(Mode.SEV_ES)), text="default: the config's"),
    Option("--api-major", "N", text="API version of the host's firmware", convert=whole(0, 255)),
    Option("--api-minor", "N", text="API version of the host's firmware", convert=whole(0, 255)),
    Option("--build", "N", text="build of the host's firmware", convert=whole(0, 255)),
)
SYNTAX = Syntax(
    Group(
        "what is expected",
        CONFIG,
        Option("--workload", "FILE", text="the document that the guest must be bound to", convert=Path),
        Option("--unbound", text="a guest in which the host chooses what runs is accepted"),
        Option("--append", "TEXT", text="with --workload: as for run", convert=cmdline_text),
        Option("--digests", "FILE", text=f"default: {DIGESTS_NAME} beside the config", convert=Path),
        Option("--digest", "HEX", text="one launch digest, instead of --digests"),
        Option("--cpu", "MODEL", text="only digests for this CPU model"),
        Option("--cpus", "N", text="only digests for N vCPUs", convert=whole(1, VCPUS_MAX)),
        Option("--policy", "BITS", text="guest policy; default: the config's", convert=_policy),
        JSON,
    ),
    Group(
        "whose artifacts",
        Option(
            "--pull-policy",
            "FILE",
            text="the artifacts beside the config must be endorsed as this policy of `pull` wants it",
            convert=Path,
        ),
        Option("--statement", "FILE", text="a signed statement that is not beside them", convert=Path, many=True),
        Option("--state", "DIR", text="where the highest SVN is remembered; default: ~/.local/state", convert=Path),
    ),
    _REPORT,
    _MEASUREMENT,
    usage=("REPORT [options]", "--measurement BASE64|FILE --tik FILE [options]"),
    positional=Option("report", "REPORT", text="SEV-SNP attestation report", convert=Path),
    exclusive=(("--vcek", "--vlek"), ("--workload", "--unbound"), ("--workload", "--digests")),
    examples=_EXAMPLES,
)


def run(options: Values, ui: Ui) -> int:
    """Print the checks and the verdict."""
    network = options.workload is not None and read_document(options.workload).network != "none"
    options["config"] = options.config or default_config(network=network)
    if (options.report is None) == (options.measurement is None):
        raise UserError("give either an attestation report or --measurement", hint=f"see {NAME} verify --help")
    foreign, what = _REPORT, "an attestation report"
    if options.measurement is None:
        foreign, what = _MEASUREMENT, "a launch measurement"
    for option in foreign.options:
        if options[option.key] is not None and options[option.key] is not False:
            raise UserError(f"{option.name} belongs to {what}")
    if options.digest is not None and (options.digests or options.cpu or options.cpus):
        raise UserError("--digest stands for itself: leave out --digests, --cpu and --cpus")
    if options.digest is not None and options.workload is not None:
        raise UserError("--workload computes the launch digest: leave out --digest")
    if options.append is not None and options.workload is None:
        raise UserError("--append belongs to --workload")
    return verify_report(options, ui) if options.measurement is None else verify_measurement(options, ui)
