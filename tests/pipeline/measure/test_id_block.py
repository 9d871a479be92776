# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""ID blocks: known answers, signatures that verify and stop verifying, keys that are refused."""

import base64
import os
import re
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, utils
from sevsnpmeasure import id_block

from tools.pipeline.base.errors import UserError
from tools.pipeline.measure import id_keys
from tools.pipeline.measure.id_keys import SigningKey
from tools.sev import id_block as idblock
from tools.sev.id_block import Author, IdBlock, Identity, IdKey

DIGEST = bytes(range(48))
IDENTITY = Identity(family_id=b"family".ljust(16, b"\0"), image_id=b"image".ljust(16, b"\0"), svn=7)


def write_key(path: Path, key: object | None = None, password: bytes | None = None) -> Path:
    """A private key as openssl ecparam -genkey -noout writes it."""
    key = key or ec.generate_private_key(ec.SECP384R1())
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem = key.private_bytes(  # type: ignore[attr-defined]  # keys of every kind have it
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, encryption
    )
    path.write_bytes(pem)
    path.chmod(0o600)
    return path


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """A good key."""
    return write_key(tmp_path / "id.pem")


@pytest.fixture
def author_file(tmp_path: Path) -> Path:
    """Another."""
    return write_key(tmp_path / "author.pem")


def sign(key: SigningKey, author: SigningKey | None = None) -> tuple[bytes, bytes]:
    block = IdBlock(digest=DIGEST, identity=IDENTITY, policy=0x30000).packed
    signed_by = None
    if author is not None:
        signed_by = Author(key=author.public, id_key_signature=author.sign(key.public.packed))
    return block, idblock.id_auth(block_signature=key.sign(block), id_key=key.public, author=signed_by)


def verify(block: bytes, auth: bytes) -> None:
    """What the secure processor does with both, written anew from the specification's tables."""

    def key_at(offset: int) -> ec.EllipticCurvePublicKey:
        assert auth[offset : offset + 4] == b"\2\0\0\0"
        x, y = (int.from_bytes(auth[at : at + 72], "little") for at in (offset + 4, offset + 4 + 72))
        assert not any(auth[offset + 148 : offset + 1028])
        return ec.EllipticCurvePublicNumbers(x, y, ec.SECP384R1()).public_key()

    def signature_at(offset: int) -> bytes:
        r, s = (int.from_bytes(auth[at : at + 72], "little") for at in (offset, offset + 72))
        assert not any(auth[offset + 144 : offset + 512])
        return utils.encode_dss_signature(r, s)

    algorithm = ec.ECDSA(hashes.SHA384())
    assert auth[:4] == b"\1\0\0\0"
    key_at(0x240).verify(signature_at(0x040), block, algorithm)
    if auth[4:8] == b"\1\0\0\0":
        key_at(0x880).verify(signature_at(0x680), auth[0x240 : 0x240 + 1028], algorithm)
    else:
        assert not any(auth[4:8])
        assert not any(auth[0x680:])


def test_the_blocks_layout() -> None:
    block = IdBlock(digest=DIGEST, identity=IDENTITY, policy=0x0102030405060708).packed
    assert len(block) == 96
    assert block[:48] == DIGEST
    assert block[48:64] == b"family" + bytes(10)
    assert block[64:80] == b"image" + bytes(11)
    assert block[80:] == bytes.fromhex("01000000070000000807060504030201")
    assert IdBlock.unpack(block) == IdBlock(digest=DIGEST, identity=IDENTITY, policy=0x0102030405060708)


def test_known_answers() -> None:
    """ID block and key digests of virtee/sev, tests/id-block.rs, with the public halves of its test keys."""
    digest = bytes.fromhex(
        "a14d638341e5674628fe1e02fbedebe5e5ab4faf1dd72d8966068e615bb99efd13d214b35c231715b38e263dc6059745"
    )
    plain = Identity(family_id=bytes(16), image_id=bytes(16), svn=0)
    block = IdBlock(digest=digest, identity=plain, policy=0x30000).packed
    assert base64.b64encode(block).decode() == (
        "oU1jg0HlZ0Yo/h4C++3r5eWrT68d1y2JZgaOYVu5nv0T0hSzXCMXFbOOJj3GBZdF"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABAAAAAAAAAAAAAwAAAAAA"
    )
    id_key = IdKey(
        x=0xF6763E4D2609CF1B2CF22F2CC8B8CA4CF55D470C3C23552C93B168874390DD95CB3FDEE847DDF79FF29EFBB8803C6D1F,
        y=0xCCD7A8D047B9CDC1C750B1190ABE6D1DAD37A8DECB14327B766619F712607CFD0D38853C50DA9BCD080B35389C93BE3E,
    )
    author_key = IdKey(
        x=0x6270C78BD6904CD1336299A25B98736A71CE92FEF07494D72CB28B073C830F9F564AF7A5C1C6FFC5A34973D5DA45868C,
        y=0x863C7930A2C98448A77A10088102E2A95F9308CD3E56B559B7FD3ACC88B3CC2A19774348FEA2F2C9031191E07187ACF5,
    )
    digests = [base64.b64encode(key.digest).decode() for key in (id_key, author_key)]
    assert digests == [
        "WfssaG36T+9J84M5qndckAUcKNVzg93DuvO160sUlt87DbvcuuX+J2d6ZEggdz/i",
        "7tgRafsMteDsNHlPEo/U4MSkb2fGWhrfqB/LJLzAiMJyNpt//D6ytq9qQoShs2xf",
    ]


def test_signatures_verify(key_file: Path, author_file: Path) -> None:
    key, author = id_keys.load(key_file), id_keys.load(author_file)
    for signed in (sign(key), sign(key, author)):
        assert [len(part) for part in signed] == [96, 4096]
        verify(*signed)


def test_one_changed_bit_anywhere_that_counts_breaks_it(key_file: Path, author_file: Path) -> None:
    block, auth = sign(id_keys.load(key_file), id_keys.load(author_file))
    verify(block, auth)
    for position in range(len(block)):
        changed = bytearray(block)
        changed[position] ^= 1
        with pytest.raises(InvalidSignature):
            verify(bytes(changed), auth)
    # One byte in each number of keys and signatures, and in what says which algorithm and curve it is.
    numbers = [base + 72 * i for base in (0x040, 0x680) for i in (0, 1)]
    numbers += [base + 4 + 72 * i for base in (0x240, 0x880) for i in (0, 1)]
    for position in [*numbers, 0, 4, 0x240, 0x880, 0x280 + 144, 0x880 + 1000]:
        changed = bytearray(auth)
        changed[position] ^= 1
        with pytest.raises((InvalidSignature, AssertionError, ValueError)):
            verify(block, bytes(changed))


def test_equal_input_gives_equal_bytes(key_file: Path, author_file: Path) -> None:
    first = sign(id_keys.load(key_file), id_keys.load(author_file))
    assert sign(id_keys.load(key_file), id_keys.load(author_file)) == first
    other = write_key(key_file.with_name("other.pem"))
    assert sign(id_keys.load(other), id_keys.load(author_file)) != first


def test_a_known_signature() -> None:
    """RFC 6979, A.2.6: ECDSA on P-384 with SHA-384 of the message "sample"."""
    secret = 0x6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5
    signature = SigningKey(ec.derive_private_key(secret, ec.SECP384R1())).sign(b"sample")
    assert signature.r == (
        0x94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46
    )
    assert signature.s == (
        0x99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8
    )


def test_agrees_with_sev_snp_measure(key_file: Path, author_file: Path) -> None:
    """Its helper has policy 0x30000, SVN 0 and zero ids fixed, and random nonces: the rest is compared."""
    plain = Identity(family_id=bytes(16), image_id=bytes(16), svn=0)
    key, author = id_keys.load(key_file), id_keys.load(author_file)
    theirs = id_block.snp_calc_id_block(DIGEST, str(key_file), str(author_file))
    found = re.fullmatch(r"id-block=(.*),id-auth=(.*)\nid_key_hash: (.*)\nauthor_key: (.*)", theirs)
    assert found is not None
    block, auth, id_digest, author_digest = (base64.b64decode(part) for part in found.groups())
    assert block == IdBlock(digest=DIGEST, identity=plain, policy=0x30000).packed
    assert (id_digest, author_digest) == (key.public.digest, author.public.digest)
    verify(block, auth)
    ours = idblock.id_auth(
        block_signature=key.sign(block),
        id_key=key.public,
        author=Author(key=author.public, id_key_signature=author.sign(key.public.packed)),
    )
    without = [slice(0x000, 0x040), slice(0x040 + 144, 0x680), slice(0x680 + 144, 4096)]
    assert [ours[part] for part in without] == [auth[part] for part in without]


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a", b"a" + bytes(15)),
        ("sev-artifacts", b"sev-artifacts\0\0\0"),
        ("sixteen-letters!", b"sixteen-letters!"),
        ("00112233445566778899aAbBcCdDeEfF", bytes.fromhex("00112233445566778899aabbccddeeff")),
        # 16 digits are text: only 32 are hexadecimal.
        ("0011223344556677", b"0011223344556677"),
    ],
)
def test_ids(text: str, data: bytes) -> None:
    assert idblock.parse_id(text) == data


@pytest.mark.parametrize("text", ["", "seventeen-letters", "two words", "é", "0" * 31, "g" * 32, "0" * 33, "\n"])
def test_bad_ids(text: str) -> None:
    with pytest.raises(ValueError, match="neither 1 to 16 ASCII characters"):
        idblock.parse_id(text)


def refused(path: Path) -> str:
    with pytest.raises(UserError) as info:
        id_keys.load(path)
    line = str(info.value)
    assert line.startswith(f"{path}: ")
    assert len(line.splitlines()) == 1
    return line


def test_other_keys_are_refused(tmp_path: Path) -> None:
    small = ec.generate_private_key(ec.SECP256R1())
    assert "the key is secp256r1, SEV-SNP takes P-384 only; make one with" in refused(
        write_key(tmp_path / "p256.pem", small)
    )
    other = rsa.generate_private_key(65537, 1024)
    assert "not of an elliptic curve" in refused(write_key(tmp_path / "rsa.pem", other))
    edwards = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "ed25519.pem"
    path.write_bytes(edwards)
    path.chmod(0o600)
    assert "not of an elliptic curve" in refused(path)


@pytest.mark.parametrize("style", ["TraditionalOpenSSL", "PKCS8"])
def test_encrypted_keys_are_refused(tmp_path: Path, style: str) -> None:
    pem = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM,
        getattr(serialization.PrivateFormat, style),
        serialization.BestAvailableEncryption(b"secret"),
    )
    path = tmp_path / "encrypted.pem"
    path.write_bytes(pem)
    assert "is encrypted; give an unencrypted copy" in refused(path)


def test_files_that_are_no_key_are_refused(tmp_path: Path, key_file: Path) -> None:
    path = tmp_path / "file"
    public = id_keys.load(key_file)._key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    whole = key_file.read_bytes()
    for content in (b"", b"key", pem, whole[: len(whole) // 2], whole.replace(b"EC PRIVATE", b"RSA PRIVATE")):
        path.write_bytes(content)
        assert "holds no private key in PEM; make one with openssl ecparam" in refused(path)
    path.write_bytes(bytes(70_000))
    assert "is larger than 65536 bytes" in refused(path)
    assert "No such file" in refused(tmp_path / "none")
    assert "Is a directory" in refused(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    assert "is not a regular file" in refused(tmp_path / "fifo")


def test_a_key_that_others_can_read_is_refused(key_file: Path) -> None:
    id_keys.load(key_file)
    for mode in (0o640, 0o604, 0o620):
        key_file.chmod(mode)
        with pytest.raises(UserError, match=rf"others can read or write it \(mode {mode:o}\); chmod 600 "):
            id_keys.load(key_file)


def test_openssls_file_with_parameters_before_the_key(key_file: Path) -> None:
    """`openssl ecparam -genkey` without -noout."""
    parameters = b"-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n"
    wanted = id_keys.load(key_file).public
    key_file.write_bytes(parameters + key_file.read_bytes())
    assert id_keys.load(key_file).public == wanted
