# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What both forms of `sev-launch verify` are given, and what both say of a policy."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tools.launcher.attest.checks import Check, Result, passed, unchecked
from tools.launcher.attest.expected import Entry, read_expected, select
from tools.launcher.base import encodings, files
from tools.launcher.base.errors import UserError
from tools.launcher.base.ui import Ui
from tools.launcher.base.values import Values
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig, load_config
from tools.launcher.guest.binding import compose, read_document
from tools.launcher.measure.digest_file import launch_digests
from tools.sev import policy as policies
from tools.sev.cpu_models import CPU_MODELS
from tools.sev.formats import DIGESTS_VCPUS, digests_beside
from tools.sev.modes import Mode, ProfileKind
from tools.sev.workload.document import Document
from tools.sev.workload.openings import openings

_FILE_MAX = 1 << 20


def config_reader(options: Values) -> Callable[[], RuntimeConfig]:
    """The config, read when something needs it: a relying party may have nothing but a digest."""
    return lambda: load_config(options.config)


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """The launch digests to compare with, and the line that says what such a guest runs."""

    entries: tuple[Entry, ...]
    workload: Check
    document: Document | None = None


def expectation(options: Values, mode: Mode) -> Expectation:
    """What is expected of a guest in `mode`: --workload, --unbound, or digests that say nothing of what runs."""
    name = "workload"
    if options.workload is not None:
        document = read_document(options.workload)
        config = load_config(options.config)
        opened = openings(document)
        if config.profile is ProfileKind.DEBUG:
            opened.append("debug profile: the host reads the kernel's log")
        found: tuple[str, ...] = (f"SHA-256 {document.sha256}; the host may do nothing to it but end it",)
        if opened:
            found = (f"SHA-256 {document.sha256}, which leaves to the host:", *opened)
        entries = select(
            tuple(_computed(options, mode, config, document)),
            cpu=options.cpu,
            vcpus=options.cpus,
            where="what was computed",
        )
        line = Check(name=name, result=Result.OK, findings=found)
        return Expectation(entries=entries, workload=line, document=document)
    entries = _given(options, mode)
    if options.unbound:
        found = ("none: the host chooses what runs in this guest, and may start more at any time",)
        return Expectation(entries=entries, workload=Check(name=name, result=Result.OK, findings=found))
    why = "a launch digest alone does not say what runs; give --workload FILE, or --unbound to accept any"
    return Expectation(entries=entries, workload=unchecked(name, f"unknown: {why}"))


def _computed(options: Values, mode: Mode, config: RuntimeConfig, document: Document) -> Iterator[Entry]:
    """The digests of a guest that is bound to the document, from the artifacts beside the config."""
    for artifact in config.artifacts:
        artifacts.verify(config, artifact)
    cmdline = compose(config, append=options.append or "", binding=document, verity=None, rootfs=None)
    own = launch_digests(config, cmdline=cmdline)
    if mode is Mode.SEV:
        yield Entry(digest=bytes.fromhex(own.sev()))
        return
    for model in CPU_MODELS:
        variants: list[tuple[str | None, Iterator[str]]] = [(None, own.snp(model.signature))]
        if mode is Mode.SEV_ES:
            variants = [
                (f"legacy-vm-type={'on' if old else 'off'}", own.sev_es(model.signature, legacy_vm_type=old))
                for old in (False, True)
            ]
        for variant, digests in variants:
            for count, digest in enumerate(islice(digests, DIGESTS_VCPUS), start=1):
                yield Entry(
                    digest=bytes.fromhex(digest),
                    cpu=model.name,
                    qemu_models=model.qemu_models,
                    vcpus=count,
                    variant=variant,
                )


def _given(options: Values, mode: Mode) -> tuple[Entry, ...]:
    """The launch digests of --digest, or those of the file, filtered."""
    if options.digest is not None:
        digits = 2 * mode.digest_size
        if re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", options.digest) is None:
            raise UserError(f"--digest: a launch digest of {mode} has {digits} hexadecimal digits")
        return (Entry(digest=bytes.fromhex(options.digest), variant="the one given with --digest"),)
    path: Path = options.digests or options.config.parent / digests_beside(options.config.name)
    return select(read_expected(path, mode), cpu=options.cpu, vcpus=options.cpus, where=str(path))


def read_file(path: Path) -> bytes:
    """A small file that the user named."""
    return files.read(path, _FILE_MAX)


def sized_file(path: Path, size: int, *, where: str) -> bytes:
    """A file of `size` bytes, plain or as text; UserError says what it looks like instead."""
    data = read_file(path)
    found = encodings.decode(data, size=size)
    if found is None:
        raise UserError(f"has {len(data)} bytes{encodings.resemblance(data)}, not {size}", where=where)
    return found


def check_debug(on: bool, *, expected: bool, ui: Ui) -> Check:
    """Debugging must be off, unless the policy that the user expects has it on."""
    if on and expected:
        ui.warn("debugging is on, as the expected policy says: the host can read and change this guest's memory")
    return passed(
        "debugging",
        not on or expected,
        "on, as expected: the host can read and change the guest's memory" if on else "off",
        otherwise="on: the host can read and change the guest's memory",
    )


def open_to_host(policy: int, mode: Mode, ui: Ui) -> tuple[str, ...]:
    """By what else than debugging a policy that holds lets the host read the guest: a finding for each.

    They do not stand against "verified": the relying party gave this policy. They are said on stderr too.
    """
    found = [(name, text) for name, text in policies.openings(policy, policies.LAYOUTS[mode]) if name != "debug"]
    if found:
        ui.warn(f"the expected policy leaves this guest open to its host: {', '.join(name for name, _ in found)}")
    return tuple(f"open to the host: {name}: {text}" for name, text in found)
