# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/guest.toml: the machine that a guest gets, whatever the profile."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tools.pipeline.base import toml_reader
from tools.pipeline.base.toml_reader import Table
from tools.pipeline.measure import id_block, policy
from tools.pipeline.measure.id_block import Identity

FILE = "recipes/guest.toml"
SCHEMA = 2

_CPU = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_MACHINE = r"q35|pc-q35-[0-9]{1,2}\.[0-9]{1,2}"


class SevMode(StrEnum):
    """How the guest's memory is protected; runtime.toml and the launcher use the same words."""

    SNP = "snp"
    SEV_ES = "sev-es"
    SEV = "sev"


@dataclass(frozen=True, kw_only=True)
class Guest:
    """The machine. Policies are bits, made from their names."""

    machine: str
    cpu: str
    vcpus: int
    memory: str
    mode: SevMode
    reduced_phys_bits: int
    snp_policy: int
    identity: Identity
    sev_es_policy: int
    sev_es_legacy_vm_type: bool
    sev_policy: int
    rng: bool

    def debuggable(self) -> tuple[SevMode, ...]:
        """The modes whose policy lets the host debug the guest, that is read it."""
        bits = {SevMode.SNP: self.snp_policy, SevMode.SEV_ES: self.sev_es_policy, SevMode.SEV: self.sev_policy}
        return tuple(mode for mode in SevMode if policy.allows_debug(bits[mode], policy.LAYOUTS[mode]))


def load(root: Path) -> Guest:
    """Parse the file of a checkout; UserError names file and key."""
    table = toml_reader.load(root / FILE, shown_as=FILE)
    table.integer("schema", low=SCHEMA, high=SCHEMA)
    machine, sev, devices = table.table("machine"), table.table("sev"), table.table("devices")
    snp, sev_es, plain = sev.table("snp"), sev.table("sev-es"), sev.table("sev")
    guest = Guest(
        machine=machine.string("type", pattern=_MACHINE, says="q35 or pc-q35-10.0, what the firmware is built for"),
        cpu=machine.string("cpu", pattern=_CPU, says="a QEMU CPU model"),
        vcpus=machine.integer("vcpus", low=1, high=255),
        memory=_memory(machine),
        mode=sev.choice("mode", SevMode),
        reduced_phys_bits=sev.integer("reduced-phys-bits", low=1, high=63),
        snp_policy=policy.read(snp.table("policy"), policy.SNP),
        identity=_identity(snp.table("id-block")),
        sev_es_policy=policy.read(sev_es.table("policy"), policy.SEV_ES),
        sev_es_legacy_vm_type=sev_es.boolean("legacy-vm-type"),
        sev_policy=policy.read(plain.table("policy"), policy.SEV),
        rng=devices.boolean("rng"),
    )
    for part in (snp, sev_es, plain, machine, sev, devices, table):
        part.close()
    return guest


def _memory(machine: Table) -> str:
    text = machine.string("memory", pattern=r"[1-9][0-9]{0,7}[MG]", says="a size such as 512M or 2G")
    mebibytes = int(text[:-1]) * (1024 if text.endswith("G") else 1)
    # The launcher's own limits: what it would refuse must not be written into runtime.toml.
    if not 128 <= mebibytes <= 16 << 20:
        raise machine.error("memory", f"{text!r} is outside 128M…16384G")
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
