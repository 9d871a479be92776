# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Launch digests in the standard library: a second computation, beside the build's with sev-snp-measure.

SEV and SEV-ES: SHA-256 over all that is handed to LAUNCH_UPDATE_DATA and LAUNCH_UPDATE_VMSA, in order
(SEV API, chapter 6). SNP: a SHA-384 chain over PAGE_INFO structures (SNP ABI, 8.17.2). Order and page types:
QEMU, target/i386/sev.c.

Independent of the pipeline's: chain, order, page types, the values in the VMSAs and the hashes table's bytes.
Shared with it, from tools/sev: the check that the firmware is whole, CPU signatures, SEV_FEATURES, VMSA_GPA and
the layout of the VMSA. The pipeline has its own parser of the footer, that of sev-snp-measure.
"""

import hashlib
import struct
from collections.abc import Iterator
from functools import cached_property
from itertools import islice, repeat

from tools.launcher.measure import vmsa
from tools.sev.firmware_check import check_firmware
from tools.sev.footer import Footer
from tools.sev.hashes_table import TABLE_SIZE
from tools.sev.limits import FOUR_GIB, PAGE
from tools.sev.modes import Mode
from tools.sev.vmsa import RESET_VECTOR, SEV_ES_FEATURES, SNP_FEATURES, VMSA_GPA

# The digest so far, SHA-384 of the page, u16 length of this structure, u8 page type, u8 IMI, u8 permissions
# of VMPL 3, 2 and 1, u8 reserved, u64 guest-physical address.
_PAGE_INFO = struct.Struct("<48s48sHBB4xQ")
_NORMAL, _VMSA, _ZERO, _SECRETS, _CPUID = 1, 2, 3, 5, 6
_PAGE_TYPES = {"SEC_MEM": _ZERO, "SVSM_CAA": _ZERO, "SECRETS": _SECRETS, "CPUID": _CPUID}
_NO_CONTENTS = bytes(48)


class LaunchDigests:
    """The digests of one firmware and one hashes table; `where` names the firmware in errors.

    FormatError when the firmware lacks anything that a measured launch needs: there is no digest for it then.
    """

    def __init__(self, image: bytes, table: bytes, *, where: str) -> None:
        assert len(table) == TABLE_SIZE
        firmware = check_firmware(image, where=where)
        assert firmware.sev_es_reset is not None
        self._ap_eip = firmware.sev_es_reset
        self._image = image
        self._table = table
        self._firmware = firmware

    # Computed when asked for: most callers want one mode, and the image has a megabyte.
    @cached_property
    def _plain(self) -> "hashlib._Hash":
        return hashlib.sha256(self._image + self._table)

    @cached_property
    def snp_before_vmsas(self) -> bytes:
        """The chain up to the first vCPU's page."""
        return snp_sections(snp_flash(self._image), self._table, self._firmware)

    def digest(self, mode: Mode, *, signature: int, vcpus: int, legacy_vm_type: bool) -> str:
        """One digest, in hexadecimal.

        `signature` and `vcpus` matter to SEV-ES and SNP, `legacy_vm_type` to SEV-ES.
        """
        match mode:
            case Mode.SEV:
                return self.sev()
            case Mode.SEV_ES:
                every = self.sev_es(signature, legacy_vm_type=legacy_vm_type)
            case Mode.SNP:
                every = self.snp(signature)
        return next(islice(every, vcpus - 1, None))

    def sev(self) -> str:
        """SEV: no vCPU is in it."""
        return self._plain.hexdigest()

    def sev_es(self, signature: int, *, legacy_vm_type: bool) -> Iterator[str]:
        """SEV-ES, for 1, 2, 3 … vCPUs without end."""
        bsp, ap = self.vmsa_pages(signature, features=SEV_ES_FEATURES, fpu=not legacy_vm_type)
        total = self._plain.copy()
        total.update(bsp)
        yield total.hexdigest()
        for page in repeat(ap):
            total.update(page)
            yield total.hexdigest()

    def snp(self, signature: int) -> Iterator[str]:
        """SEV-SNP, for 1, 2, 3 … vCPUs without end."""
        pages = self.vmsa_pages(signature, features=SNP_FEATURES, fpu=True)
        bsp, ap = (hashlib.sha384(page).digest() for page in pages)
        digest = _extend(self.snp_before_vmsas, bsp, page_type=_VMSA, gpa=VMSA_GPA)
        yield digest.hex()
        for contents in repeat(ap):
            digest = _extend(digest, contents, page_type=_VMSA, gpa=VMSA_GPA)
            yield digest.hex()

    def vmsa_pages(self, signature: int, *, features: int, fpu: bool) -> tuple[bytes, bytes]:
        """The VMSA of the first vCPU, and that of each further one, which starts where the footer says."""
        first = vmsa.page(eip=RESET_VECTOR, signature=signature, features=features, fpu=fpu)
        further = vmsa.page(eip=self._ap_eip, signature=signature, features=features, fpu=fpu)
        return first, further


def sha384_of(page: bytes) -> str:
    """How a page stands in the chain, in hexadecimal."""
    return hashlib.sha384(page).hexdigest()


def _extend(digest: bytes, contents: bytes, *, page_type: int, gpa: int) -> bytes:
    info = _PAGE_INFO.pack(digest, contents, _PAGE_INFO.size, page_type, 0, gpa)
    return hashlib.sha384(info).digest()


def snp_flash(image: bytes) -> bytes:
    """The beginning of the chain: the flash, page by page; it ends at 4 GiB."""
    digest = bytes(48)
    base = FOUR_GIB - len(image)
    for offset in range(0, len(image), PAGE):
        contents = hashlib.sha384(image[offset : offset + PAGE]).digest()
        digest = _extend(digest, contents, page_type=_NORMAL, gpa=base + offset)
    return digest


def snp_sections(digest: bytes, table: bytes, firmware: Footer) -> bytes:
    """The chain's second part: what the metadata lists, in its order; the hashes table fills one page."""
    for section in firmware.sections:
        if section.name == "KERNEL_HASHES":
            page = bytes(firmware.hashes.base % PAGE) + table
            contents = hashlib.sha384(page.ljust(PAGE, b"\0")).digest()
            digest = _extend(digest, contents, page_type=_NORMAL, gpa=section.base)
            continue
        for gpa in range(section.base, section.base + section.size, PAGE):
            digest = _extend(digest, _NO_CONTENTS, page_type=_PAGE_TYPES[section.name], gpa=gpa)
    return digest
