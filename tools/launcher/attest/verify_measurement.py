# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch verify --measurement`: the launch measurement of an SEV or SEV-ES guest."""

import os
from pathlib import Path

from tools.launcher.attest import measurement
from tools.launcher.attest.checks import Check, passed, show, unchecked
from tools.launcher.attest.expected import Entry
from tools.launcher.attest.inputs import check_debug, config_reader, expectation, open_to_host, sized_file
from tools.launcher.attest.measurement import Measurement, Platform
from tools.launcher.attest.vouched import check_endorsed
from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import Ui
from tools.launcher.base.values import Values
from tools.sev import policy as policies
from tools.sev.modes import Mode

_POLICY_MAX = (1 << 32) - 1
_NO_INTEGRITY = "the host can replay and remap memory; no report can be asked for at run time"
_LACKS = {Mode.SEV: f"registers are the host's to read and change; {_NO_INTEGRITY}", Mode.SEV_ES: _NO_INTEGRITY}
# Never the word that an SNP report gets.
_VERDICT = "launch measured"


def verify_measurement(options: Values, ui: Ui) -> int:
    """Print the lines and the verdict; returns the exit status."""
    missing = [name for name in ("tik", "api_major", "api_minor", "build") if getattr(options, name) is None]
    if missing:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise UserError(f"a launch measurement needs {names} too")
    tik = sized_file(options.tik, measurement.TIK_SIZE, where=f"--tik {options.tik}")
    mode, policy = _mode_and_policy(options)
    platform = Platform(api_major=options.api_major, api_minor=options.api_minor, build=options.build)
    given = _measurement(options.measurement)
    expected = expectation(options, mode)
    entries = expected.entries
    found = [
        entry
        for entry in entries
        if measurement.matches(given, tik=tik, platform=platform, policy=policy, digest=entry.digest)
    ]
    debug = policies.allows_debug(policy, policies.LAYOUTS[mode])
    checks = [
        _line(found, entries, policy, open_to_host(policy, mode, ui) if found else ()),
        expected.workload,
        *check_endorsed(options),
        check_debug(debug, expected=debug, ui=ui),
        unchecked(f"what {mode} lacks", _LACKS[mode], mandatory=False),
    ]
    facts = {
        "mode": str(mode),
        "policy": policy,
        "platform": {"api": f"{platform.api_major}.{platform.api_minor}", "build": platform.build},
        "measurement": {"hmac": given.mac.hex(), "mnonce": given.mnonce.hex()},
    }
    return show(checks, facts, as_json=options.json, word=_VERDICT)


def _line(found: list[Entry], entries: tuple[Entry, ...], policy: int, open_: tuple[str, ...]) -> Check:
    names = "; ".join(map(str, found))
    return passed(
        "launch measurement",
        bool(found),
        (f"of launch digest {found[0].digest.hex()} ({names}), policy {policy:#x}", *open_) if found else "",
        otherwise=f"none of the {len(entries)} launch digests gives it with this TIK, policy {policy:#x}, "
        "API version and build",
    )


def _mode_and_policy(options: Values) -> tuple[Mode, int]:
    """What --mode and --policy say, the rest from the config."""
    config = config_reader(options)
    policy: int | None = options.policy
    if policy is not None and policy > _POLICY_MAX:
        raise UserError(f"--policy {policy:#x} is no SEV policy, which has 32 bits")
    if options.mode is not None:
        mode = Mode(options.mode)
    elif policy is not None:
        mode = Mode.SEV_ES if policy >> policies.ES_BIT & 1 else Mode.SEV
    else:
        mode = config().sev.mode
    if mode is Mode.SNP:
        raise UserError("the config's mode is snp, which has no launch measurement", hint="say --mode sev-es or sev")
    if policy is None:
        policy = config().sev.policy(mode)
    if bool(policy >> policies.ES_BIT & 1) != (mode is Mode.SEV_ES):
        raise UserError(f"policy {policy:#x} is not one of {mode}: bit 2 (ES) says which it is")
    return mode, policy


def _measurement(text: str) -> Measurement:
    """The base64 itself, or a file that holds it."""
    try:
        return measurement.decode(text)
    except ValueError as error:
        what = str(error)
    path = Path(text)
    if "\0" not in text and os.path.lexists(text):
        return measurement.split(sized_file(path, measurement.BLOB_SIZE, where=text))
    raise UserError(f"{what}, and names no file", where="--measurement")
