# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Launch digests of one set of measured inputs, for every mode, CPU and number of vCPUs.

`sev-snp-measure` does what it is right in: the footer's parsing, the hashes table, the SNP chain, the VMSA as
QEMU and KVM set it up. Of these nothing is shared with the launcher's own computation, which checks every digest
made here; shared, from tools/sev, are the check that a firmware is whole, CPU signatures, SEV_FEATURES and
VMSA_GPA. It is departed from in three places, each with its reason in docs/launch-digests.md:

- The firmware is checked first; the library gives a plausible number for a damaged or wrong one.
- SEV-ES under the legacy VM type has another VMSA than the library's.
- Its calls start from nothing for each number of vCPUs; here a digest is resumed from the one before.

Runs in the sandbox: standard library, tools/sev and the library, nothing else of ours.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.sev import firmware_check
from tools.sev.cpu_models import is_signature
from tools.sev.limits import VCPUS_MAX
from tools.sev.vmsa import SEV_ES_FEATURES, SNP_FEATURES


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is measured: files, and the command line byte for byte (without the NUL that is hashed with it).

    `firmware_size` is what the firmware must have, in bytes; `initramfs` None: built into the kernel.
    """

    firmware: Path
    firmware_size: int
    kernel: Path
    initramfs: Path | None
    cmdline: str


@dataclass(frozen=True, kw_only=True)
class SnpStart:
    """The digest chain before its last links: from these any number of vCPUs can be computed.

    `before_vmsas` is the digest after firmware and metadata; `bsp` and `ap` are the SHA-384 of the VMSA page
    of the first vCPU and of each further one. All in hexadecimal.
    """

    before_vmsas: str
    bsp: str
    ap: str


class Launch:
    """The inputs, checked and read once. OSError when one cannot be read, FormatError for bad firmware."""

    def __init__(self, inputs: Inputs) -> None:
        from sevsnpmeasure import gctx, guest, ovmf, sev_hashes, vmm_types  # noqa: PLC0415 (start-up: measuring only)

        image = inputs.firmware.read_bytes()
        firmware_check.check_firmware(image, where=str(inputs.firmware), size=inputs.firmware_size)
        firmware = ovmf.OVMF(str(inputs.firmware))
        initramfs = None if inputs.initramfs is None else str(inputs.initramfs)
        hashes = sev_hashes.SevHashes(str(inputs.kernel), initramfs, inputs.cmdline)
        self._ap_eip: int = firmware.sev_es_reset_eip()
        # LAUNCH_UPDATE_DATA (SEV API, chapter 6): the whole flash, then the table that QEMU writes into RAM.
        self._plain = hashlib.sha256(firmware.data())
        self._plain.update(hashes.construct_table())
        # SNP_LAUNCH_UPDATE (SNP ABI, 8.17): flash, then the sections in the order of the metadata.
        chain = gctx.GCTX()
        chain.update_normal_pages(firmware.gpa(), firmware.data())
        guest.snp_update_metadata_pages(chain, firmware, hashes, vmm_types.VMMType.QEMU)
        self._snp: bytes = chain.ld()

    def sev(self) -> str:
        """SEV: no vCPU is in it."""
        return self._plain.hexdigest()

    def sev_es(self, signature: int, *, legacy_vm_type: bool, up_to: int) -> list[str]:
        """SEV-ES for 1, 2, … `up_to` vCPUs, in that order."""
        _check(signature, up_to)
        bsp, ap = self._vmsas(signature, features=SEV_ES_FEATURES, fpu=not legacy_vm_type)
        total = self._plain.copy()
        digests = []
        for page in _pages(bsp, ap, up_to):
            total.update(page)
            digests.append(total.hexdigest())
        return digests

    def snp(self, signature: int, *, up_to: int) -> list[str]:
        """SEV-SNP for 1, 2, … `up_to` vCPUs, in that order."""
        from sevsnpmeasure import gctx  # noqa: PLC0415 (start-up, as above)

        _check(signature, up_to)
        bsp, ap = self._vmsas(signature, features=SNP_FEATURES, fpu=True)
        chain = gctx.GCTX(seed=self._snp)
        digests = []
        for page in _pages(bsp, ap, up_to):
            chain.update_vmsa_page(page)
            digests.append(chain.hex_ld())
        return digests

    def snp_start(self, signature: int) -> SnpStart:
        """The resumable form of SEV-SNP."""
        _check(signature, 1)
        bsp, ap = self._vmsas(signature, features=SNP_FEATURES, fpu=True)
        return SnpStart(
            before_vmsas=self._snp.hex(),
            bsp=hashlib.sha384(bsp).hexdigest(),
            ap=hashlib.sha384(ap).hexdigest(),
        )

    def _vmsas(self, signature: int, *, features: int, fpu: bool) -> tuple[bytes, bytes]:
        """The VMSA pages of the first vCPU and of each further one.

        Without `fpu` the x87 and SSE control words are zero: KVM leaves the FPU state out of the VMSA for
        KVM_X86_DEFAULT_VM (Linux, arch/x86/kvm/svm/sev.c, sev_es_sync_vmsa()), "to avoid breaking older
        measurements". The library has them always.
        """
        from sevsnpmeasure import sev_mode, vmsa  # noqa: PLC0415 (start-up, as above)

        state = vmsa.VMSA(sev_mode.SevMode.SEV_ES, self._ap_eip, signature, features)
        areas: list[Any] = [state.bsp_save_area, state.ap_save_area]
        if not fpu:
            for area in areas:
                area.mxcsr = 0
                area.x87_fcw = 0
        return bytes(areas[0]), bytes(areas[1])


def _pages(bsp: bytes, ap: bytes, count: int) -> Iterator[bytes]:
    yield bsp
    for _ in range(1, count):
        yield ap


def _check(signature: int, vcpus: int) -> None:
    if not is_signature(signature):
        raise ValueError(f"{signature:#x} is no CPUID signature of a processor with SEV")
    if not 1 <= vcpus <= VCPUS_MAX:
        raise ValueError(f"{vcpus} vCPUs: not in 1…{VCPUS_MAX}")
