# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/guest.toml: the machine that a guest gets, whatever the profile."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import toml_reader
from tools.pipeline.base.toml_reader import Table
from tools.pipeline.recipes import policies
from tools.sev import id_block, policy
from tools.sev.id_block import Identity
from tools.sev.limits import VCPUS_MAX, memory_mib
from tools.sev.modes import Mode

FILE = "recipes/guest.toml"
SCHEMA = 2

_CPU = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_MACHINE = r"q35|pc-q35-[0-9]{1,2}\.[0-9]{1,2}"


@dataclass(frozen=True, kw_only=True)
class Guest:
    """The machine. Policies are bits, made from their names; `open_because` has words for those that are open."""

    machine: str
    cpu: str
    vcpus: int
    memory: str
    mode: Mode
    reduced_phys_bits: int
    snp_policy: int
    identity: Identity
    sev_es_policy: int
    sev_es_legacy_vm_type: bool
    sev_policy: int
    rng: bool
    open_because: Mapping[Mode, str]

    def debuggable(self) -> tuple[Mode, ...]:
        """The modes whose policy lets the host debug the guest, that is read it."""
        bits = {Mode.SNP: self.snp_policy, Mode.SEV_ES: self.sev_es_policy, Mode.SEV: self.sev_policy}
        return tuple(mode for mode in Mode if policy.allows_debug(bits[mode], policy.LAYOUTS[mode]))


def load(root: Path) -> Guest:
    """Parse the file of a checkout; UserError names file and key."""
    table = toml_reader.load(root / FILE, shown_as=FILE)
    table.integer("schema", low=SCHEMA, high=SCHEMA)
    machine, sev, devices = table.table("machine"), table.table("sev"), table.table("devices")
    snp, sev_es, plain = sev.table("snp"), sev.table("sev-es"), sev.table("sev")
    snp_policy = policies.read(snp.table("policy"), policy.SNP)
    sev_es_policy = policies.read(sev_es.table("policy"), policy.SEV_ES)
    sev_policy = policies.read(plain.table("policy"), policy.SEV)
    because = {
        Mode.SNP: policies.because(snp, snp_policy, policy.SNP),
        Mode.SEV_ES: policies.because(sev_es, sev_es_policy, policy.SEV_ES),
        Mode.SEV: policies.because(plain, sev_policy, policy.SEV),
    }
    guest = Guest(
        machine=machine.string("type", pattern=_MACHINE, says="q35 or pc-q35-10.0, what the firmware is built for"),
        cpu=machine.string("cpu", pattern=_CPU, says="a QEMU CPU model"),
        vcpus=machine.integer("vcpus", low=1, high=VCPUS_MAX),
        memory=_memory(machine),
        mode=sev.choice("mode", Mode),
        reduced_phys_bits=sev.integer("reduced-phys-bits", low=1, high=63),
        snp_policy=snp_policy,
        identity=_identity(snp.table("id-block")),
        sev_es_policy=sev_es_policy,
        sev_es_legacy_vm_type=sev_es.boolean("legacy-vm-type"),
        sev_policy=sev_policy,
        rng=devices.boolean("rng"),
        open_because={mode: words for mode, words in because.items() if words},
    )
    for part in (snp, sev_es, plain, machine, sev, devices, table):
        part.close()
    return guest


def _memory(machine: Table) -> str:
    text = machine.string("memory")
    try:
        memory_mib(text)
    except ValueError as error:
        raise machine.error("memory", str(error)) from None
    return text


def _identity(table: Table) -> Identity:
    identity = Identity(
        family_id=_id(table, "family-id"),
        image_id=_id(table, "image-id"),
        svn=table.integer("svn", low=0, high=id_block.SVN_MAX),
    )
    table.close()
    return identity


def _id(table: Table, key: str) -> bytes:
    try:
        return id_block.parse_id(table.string(key))
    except ValueError as error:
        raise table.error(key, str(error)) from None
