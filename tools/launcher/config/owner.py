# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the owner of a guest gives for its launch: ID block, host data, session and certificate.

None of it is part of the launch digest. SEV-SNP Firmware ABI specification (AMD 56860), SNP_LAUNCH_FINISH;
SEV API specification (AMD 55766), LAUNCH_START; how QEMU takes each: target/i386/sev.c. The secure processor
checks the signatures and refuses the launch; here is checked what can be without cryptography.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base import encodings, files
from tools.launcher.base.errors import UserError
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.sev import id_block
from tools.sev.id_block import AUTH_SIZE, BLOCK_SIZE, ECDSA_P384_SHA384, VERSION, IdBlock
from tools.sev.modes import Mode

HOST_DATA_SIZE = 32
# SEV API, appendix C.1, "SEV certificate": 16 bytes, a public key of 1028, two signatures of 520.
DH_CERT_SIZE = 2084
# SEV API, LAUNCH_START, "Session data": nonce, wrapped keys, IV, two HMACs.
SESSION_SIZE = 128
_FILE_MAX = 64 << 10


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The options as they were typed; the files have not been looked at."""

    id_block: Path | None = None
    id_auth: Path | None = None
    host_data: str | None = None
    dh_cert: Path | None = None
    session: Path | None = None

    def check_alone(self, *, unprotected: bool) -> None:
        """UserError for what is wrong whatever the config says."""
        for one, other, names in (
            (self.id_block, self.id_auth, "--id-block and --id-auth"),
            (self.dh_cert, self.session, "--dh-cert and --session"),
        ):
            if (one is None) is not (other is None):
                raise UserError(f"{names} go together or not at all")
        if unprotected and self.given:
            raise UserError(f"{self.given[0]} goes with a protected guest only, not with --unprotected")

    @property
    def given(self) -> list[str]:
        """The options that were used."""
        pairs = [*self._snp, *self._legacy]
        return [name for name, value in pairs if value is not None]

    @property
    def _snp(self) -> list[tuple[str, object]]:
        return [("--id-block", self.id_block), ("--id-auth", self.id_auth), ("--host-data", self.host_data)]

    @property
    def _legacy(self) -> list[tuple[str, object]]:
        return [("--dh-cert", self.dh_cert), ("--session", self.session)]

    def check_mode(self, mode: Mode) -> None:
        """UserError for an option that does not belong to the mode."""
        foreign, belongs = (self._legacy, "SEV and SEV-ES") if mode is Mode.SNP else (self._snp, "SEV-SNP")
        for name, value in foreign:
            if value is not None:
                raise UserError(f"{name} belongs to {belongs}; this guest's mode is {mode}")


@dataclass(frozen=True, kw_only=True)
class SignedIdBlock:
    """A checked ID block (96 bytes) with its authentication information (4096 bytes)."""

    block: bytes
    auth: bytes
    author_key: bool


@dataclass(frozen=True, kw_only=True)
class Owner:
    """What was given, read and checked."""

    id_block: SignedIdBlock | None = None
    host_data: bytes | None = None
    dh_cert: bytes | None = None
    session: bytes | None = None

    @property
    def snp_properties(self) -> str:
        """The end of -object sev-snp-guest's value. Base64 has nothing that QEMU would need quoted."""
        text = ""
        if self.id_block is not None:
            text += f",id-block={b64(self.id_block.block)},id-auth={b64(self.id_block.auth)}"
            if self.id_block.author_key:
                text += ",author-key-enabled=on"
        if self.host_data is not None:
            text += f",host-data={b64(self.host_data)}"
        return text


NOTHING = Owner()


def b64(data: bytes) -> str:
    """Base64 on one line."""
    return base64.b64encode(data).decode("ascii")


def read(wish: Wish, config: RuntimeConfig, *, expected_digest: bytes | None) -> Owner:
    """Read and check what was given; UserError names option and file.

    `expected_digest`: the launch digest, 48 bytes, of what is about to start; None when it is not known here,
    then only the secure processor compares it.
    """
    mode = config.sev.mode
    wish.check_mode(mode)
    signed = None
    if wish.id_block is not None and wish.id_auth is not None:
        signed = _id_block(wish, config, expected_digest=expected_digest)
    return Owner(
        id_block=signed,
        host_data=None if wish.host_data is None else _host_data(wish.host_data),
        dh_cert=None if wish.dh_cert is None else _base64_file(wish.dh_cert, "--dh-cert", DH_CERT_SIZE),
        session=None if wish.session is None else _base64_file(wish.session, "--session", SESSION_SIZE),
    )


def _id_block(wish: Wish, config: RuntimeConfig, *, expected_digest: bytes | None) -> SignedIdBlock:
    assert wish.id_block is not None
    assert wish.id_auth is not None
    where = f"--id-block {wish.id_block}"
    block = _sized(wish.id_block, where, BLOCK_SIZE)
    said = IdBlock.unpack(block)
    if said.version != VERSION:
        raise UserError(f"has version {said.version}, not {VERSION}", where=where, hint="is it an ID block?")
    if said.policy != config.sev.snp_policy:
        raise UserError(
            f"was signed for policy {said.policy:#x}, this guest's is {config.sev.snp_policy:#x}",
            where=where,
            hint="sign one for this policy: the firmware refuses a launch with another",
        )
    if expected_digest is not None and said.digest != expected_digest:
        raise UserError(
            f"was signed for launch digest {said.digest.hex()}, this guest's is {expected_digest.hex()}",
            where=where,
            hint="artifacts, --append, --verity, --cpus and the CPU model decide it",
        )
    where = f"--id-auth {wish.id_auth}"
    auth = _sized(wish.id_auth, where, AUTH_SIZE)
    id_algorithm, author_algorithm = id_block.key_algorithms(auth)
    if id_algorithm != ECDSA_P384_SHA384 or author_algorithm not in (0, ECDSA_P384_SHA384):
        raise UserError(
            f"names the key algorithms {id_algorithm} and {author_algorithm}, not 1 and 0 or 1",
            where=where,
            hint="is it ID authentication information?",
        )
    return SignedIdBlock(block=block, auth=auth, author_key=author_algorithm != 0)


def _host_data(text: str) -> bytes:
    if text.startswith("@"):
        path = Path(text[1:])
        where = f"--host-data {text}"
        return _sized(path, where, HOST_DATA_SIZE)
    if re.fullmatch(r"[0-9a-fA-F]{64}", text) is None:
        raise UserError(
            f"{text[:80]!r} is not {HOST_DATA_SIZE} bytes in hexadecimal",
            where="--host-data",
            hint="@FILE takes them from a file",
        )
    return bytes.fromhex(text)


def _sized(path: Path, where: str, size: int) -> bytes:
    """A file of `size` bytes, plain, in hexadecimal or in base64."""
    data = files.read(path, _FILE_MAX, where=where, regular=True)
    found = encodings.decode(data, size=size)
    if found is None:
        raise UserError(f"has {len(data)} bytes{encodings.resemblance(data)}, not {size}", where=where)
    return found


def _base64_file(path: Path, option: str, size: int) -> bytes:
    where = f"{option} {path}"
    data = files.read(path, _FILE_MAX, where=where, regular=True)
    decoded = _decode(data)
    if decoded is None:
        raise UserError("is not base64, which is what QEMU reads", where=where, hint="base64 -w0 FILE makes it")
    if len(decoded) != size:
        what = "--dh-cert and --session exchanged?" if len(decoded) in (DH_CERT_SIZE, SESSION_SIZE) else None
        raise UserError(f"holds {len(decoded)} bytes in base64, not {size}", where=where, hint=what)
    return decoded


def _decode(data: bytes) -> bytes | None:
    # QEMU's decoder (g_base64_decode) skips what is not base64; here that is an error.
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
