# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Keys that sign what is published: a PEM file with Ed25519 or P-256, or P-256 in a token (PKCS#11).

    --key FILE
    --key "pkcs11:token=NAME;object=NAME?module-path=FILE&pin-source=FILE"   (RFC 7512), through OpenSC's pkcs11-tool

No message quotes a key or a PIN, and a PIN is on no command line.
"""

import base64
import hashlib
import subprocess
import tempfile
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tools.pipeline.base import ambient, children, files
from tools.pipeline.base.errors import BuildError, UserError

_MAKE = "make one with openssl genpkey -algorithm ed25519 -out FILE"
_URI = "pkcs11:token=NAME;object=NAME?module-path=FILE&pin-source=FILE"
_PIN = "SEV_ARTIFACTS_PKCS11_PIN"
_TOOL = "pkcs11-tool"
_PUBLIC_MAX = 64 << 10  # bytes of a file with a public key that are read

Public = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Signer(Protocol):
    """Something that signs."""

    public: Public

    def sign(self, data: bytes) -> bytes:
        """The signature: Ed25519's 64 bytes, or ECDSA with SHA-256 in DER."""


def load(words: str, *, root: Path, where: str = "--key") -> Signer:
    """The key that the user names at `where`. UserError for one that cannot be used, or that others can read."""
    if is_token(words, where):
        return _InToken(_place(words, root, where))
    path = root / words
    where = str(path)
    _not_public(path)
    pem = files.read_private(path)
    if b"ENCRYPTED" in pem:
        raise UserError("is encrypted", where=where, hint="give an unencrypted copy and delete it afterwards")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UserError("holds no private key in PEM", where=where, hint=_MAKE) from None
    if isinstance(key, ed25519.Ed25519PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return _InMemory(key)
    raise UserError("is neither Ed25519 nor P-256", where=where, hint=_MAKE)


def is_token(words: str, where: str = "--key") -> bool:
    """Whether a key lies in a token; UserError for a URI that cannot be one of a key's. The token is not asked."""
    if not words.startswith("pkcs11:"):
        return False
    _parts(words, where)
    return True


def _not_public(path: Path) -> None:
    """A missing key, and the wrong one of a pair: better words for both than what reading a secret file has."""
    if not path.exists():
        raise UserError("is not there", where=str(path), hint=_MAKE)
    try:
        if not path.is_file():
            return
        load_public(path)
    except UserError:
        return
    raise UserError("is a public key", where=str(path), hint="name the private one")


def load_public(path: Path) -> Public:
    """A public key in PEM, of a kind that signs here; UserError for anything else."""
    where, hint = str(path), "make it with openssl pkey -in KEY -pubout -out FILE"
    try:
        with path.open("rb") as file:
            public = serialization.load_pem_public_key(file.read(_PUBLIC_MAX))
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=where, hint=hint) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UserError("holds no public key in PEM", where=where, hint=hint) from None
    if isinstance(public, ed25519.Ed25519PublicKey) or (
        isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)
    ):
        return public
    raise UserError("is neither Ed25519 nor P-256", where=where, hint=_MAKE)


def fingerprint(public: Public) -> str:
    """SHA-256 of the key as SubjectPublicKeyInfo, in base64: the hint in sigstore's bundles."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def verifies(public: Public, signature: bytes, data: bytes) -> bool:
    """Whether the signature is right."""
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, data)
        else:
            public.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


class _InMemory:
    def __init__(self, key: Private) -> None:
        self._key = key
        self.public: Public = key.public_key()

    def sign(self, data: bytes) -> bytes:
        """Equal data gives an equal signature (RFC 8032, RFC 6979)."""
        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a key lies; `pin` is a secret."""

    module: str
    token: str
    label: str
    pin: str
    where: str

    @property
    def shown(self) -> str:
        """The place in an error."""
        return f"{self.where}, token {self.token}"

    def tool(self, *words: str) -> None:
        """Run pkcs11-tool on the token."""
        argv = [_TOOL, "--module", self.module, "--token-label", self.token, *words]
        environment = {**ambient.host_environment("PATH", "HOME", "SOFTHSM2_CONF", "OPENSC_CONF"), _PIN: self.pin}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        try:
            with children.running(argv, env=environment, **pipes) as process:
                _, said = process.communicate()
        except FileNotFoundError:
            raise UserError(f"{_TOOL} is not installed", where=self.where, hint="install OpenSC") from None
        if process.returncode != 0:
            lines = said.decode(errors="replace").strip().splitlines() or [f"status {process.returncode}"]
            # Its last line is "Aborting."; what went wrong stands before it.
            line = next((line for line in lines if line.startswith("error:")), lines[-1])
            raise BuildError(f"{_TOOL}: {line[:200]}", where=self.shown)


class _InToken:
    def __init__(self, place: _Place) -> None:
        self._place = place
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "public"
            place.tool("--read-object", "--type", "pubkey", "--label", place.label, "--output-file", str(out))
            try:
                public = serialization.load_der_public_key(out.read_bytes())
            except (OSError, ValueError, UnsupportedAlgorithm):
                public = None
        if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
            raise UserError(f"{place.label!r} is no key on P-256", where=place.shown)
        self.public: Public = public

    def sign(self, data: bytes) -> bytes:
        """Each time another signature."""
        with tempfile.TemporaryDirectory() as folder:
            digest, out = Path(folder) / "digest", Path(folder) / "signature"
            digest.write_bytes(hashlib.sha256(data).digest())
            # Plain ECDSA of a digest: what every token can.
            self._place.tool(
                "--login", "--pin", f"env:{_PIN}", "--sign", "--mechanism", "ECDSA", "--signature-format", "openssl",
                "--label", self._place.label, "--input-file", str(digest), "--output-file", str(out),
            )  # fmt: skip
            signature = out.read_bytes()
        if not verifies(self.public, signature, data):
            raise BuildError("its signature is not of its public key", where=self._place.shown)
        return signature


def _parts(uri: str, where: str) -> dict[str, str]:
    path, _, query = uri.removeprefix("pkcs11:").partition("?")
    given = dict(part.partition("=")[::2] for part in [*path.split(";"), *query.split("&")] if part)
    given = {key: urllib.parse.unquote(value) for key, value in given.items()}
    wanted = {"token", "object", "module-path", "pin-source"}
    if given.keys() != wanted or not all(given.values()):
        # What was given is not repeated: it may hold a PIN.
        raise UserError("the URI must have exactly token, object, module-path and pin-source", where=where, hint=_URI)
    return given


def _place(uri: str, root: Path, where: str) -> _Place:
    given = _parts(uri, where)
    pin = files.read_private(root / given["pin-source"].removeprefix("file:")).decode(errors="replace").strip()
    return _Place(module=given["module-path"], token=given["token"], label=given["object"], pin=pin, where=where)
