# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What an owner gives, as ./doit idblock and other tools write it, and what QEMU is to be told of it."""

import base64
import dataclasses
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from tests.launcher.conftest import Answer
from tools.pipeline.measure.id_keys import SigningKey
from tools.sev import id_block as idblock
from tools.sev.id_block import Author, IdBlock, Identity

Call = Callable[..., Answer]
DIGEST = bytes(range(48))
HOST_DATA = bytes(range(32))
DH_CERT, SESSION = b"c" * 2084, b"s" * 128


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """Files as ./doit idblock and an SEV guest owner's tool write them; `folder` has a comma in its name."""

    folder: Path
    digest: bytes  # of the guest that is started, which the ID block is for

    def write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    @property
    def block(self) -> bytes:
        return (self.folder / "id-block.bin").read_bytes()

    @property
    def auth(self) -> bytes:
        return (self.folder / "id-auth.bin").read_bytes()

    @property
    def pair(self) -> list[str]:
        return ["--id-block", f"{self.folder}/id-block.bin", "--id-auth", f"{self.folder}/id-auth.bin"]

    @property
    def legacy(self) -> list[str]:
        return ["--dh-cert", f"{self.folder}/godh.b64", "--session", f"{self.folder}/session.b64"]


def signed(*, author: bool, policy: int = 0x30000, digest: bytes = DIGEST) -> tuple[bytes, bytes]:
    """A real pair."""
    key, author_key = (SigningKey(ec.generate_private_key(ec.SECP384R1())) for _ in range(2))
    identity = Identity(family_id=bytes(16), image_id=bytes(16), svn=0)
    block = IdBlock(digest=digest, identity=identity, policy=policy).packed
    by = Author(key=author_key.public, id_key_signature=author_key.sign(key.public.packed))
    auth = idblock.id_auth(block_signature=key.sign(block), id_key=key.public, author=by if author else None)
    return block, auth


def sev_object(answer: Answer) -> str:
    """The value of -object for the protection."""
    assert answer.status == 0, answer.err
    found = [line for line in answer.out.splitlines() if "-object" in line and "sev-" in line]
    assert len(found) == 1
    return found[0].removesuffix(" \\").strip().removeprefix("-object ")


SNP = "sev-snp-guest,id=snp0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on"
ES = "sev-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy=0x3f,kernel-hashes=on,legacy-vm-type=off"
SEV = ES.replace("policy=0x3f", "policy=0x3b")


def refused(answer: Answer) -> str:
    assert (answer.status, answer.out) == (2, "")
    return answer.one_line()
