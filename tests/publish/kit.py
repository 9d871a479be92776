# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A real registry on loopback, and a small checkout to publish."""

import contextlib
import datetime as dt
import hashlib
import ipaddress
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.loopback import Between, free_port
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.publish.publishing import Built, Wish
from tools.pipeline.registry import oci
from tools.pipeline.sources.pins import Archive, Package, Pin, PoolFile, Source
from tools.pipeline.sources.wanted import Architecture, Kind, WantedSource

USER, PASSWORD = "tester", "not a secret"
# htpasswd -nbB tester 'not a secret': the server takes bcrypt only.
HTPASSWD = "tester:$2b$05$abcdefghijklmnopqrstuuiitcSTbmWtinjxTMhPy6Z4ocreVFuRu\n"


@dataclass(kw_only=True)
class Server:
    """Debian's docker-registry, which keeps its data when it is killed and started again."""

    program: Path
    folder: Path
    login: bool = False
    tls: bool = False
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def start(self) -> "Server":
        self.folder.mkdir(parents=True, exist_ok=True)
        http = f"{{addr: {self.host}, secret: constant"
        if self.tls:
            if not self.ca.exists():
                certificates(self.folder)
            http += f", tls: {{certificate: {self.folder}/server.pem, key: {self.folder}/server.key}}"
        config = (
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {self.folder}/data}}, delete: {{enabled: true}}}}\n"
        )
        config += f"http: {http}}}\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        if self.login:
            (self.folder / "htpasswd").write_text(HTPASSWD)
            config += f"auth: {{htpasswd: {{realm: test, path: {self.folder}/htpasswd}}}}\n"
        (self.folder / "config.yml").write_text(config)
        log = (self.folder / "log").open("ab")
        argv = [str(self.program), "serve", str(self.folder / "config.yml")]
        self.process = subprocess.Popen(argv, stdout=log, stderr=log)
        log.close()
        for _ in range(500):
            assert self.process.poll() is None, (self.folder / "log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.02)
        raise AssertionError("the registry does not start")

    def kill(self) -> None:
        """At once, as a machine that loses power."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        # A wrapper's child ends a moment later, and would be taken for the server that is started next.
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                return
            time.sleep(0.02)
        raise AssertionError("the registry does not end")

    def tags(self, name: str) -> list[str]:
        folder = self.folder / f"data/docker/registry/v2/repositories/{name}/_manifests/tags"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def get(self, path: str) -> bytes:
        asked = urllib.request.Request(f"http://{self.host}/v2/{path}", headers={"Accept": oci.MANIFEST})
        with urllib.request.urlopen(asked) as answer:
            return bytes(answer.read())


def certificates(folder: Path) -> None:
    """An authority, and a server's certificate for 127.0.0.1 by it."""
    now = dt.datetime.now(dt.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("test authority", "127.0.0.1")]
    for number, (name, path) in enumerate(zip(names, ("ca.crt", "server.pem"), strict=True)):
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(names[0])
            .public_key(keys[number].public_key())
            .serial_number(number + 1)
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=number == 0, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(keys[0], hashes.SHA256())
        )
        (folder / path).write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


WISH = Wish(to="", tag="", although="", key="", builder="", ca="", plain_http=True, without_tools=False)


def wish(to: str, **options: object) -> Wish:
    return replace(WISH, to=to, **options)  # type: ignore[arg-type]  # the options of a test


def small_checkout(root: Path, git: str = "git", more: Mapping[str, bytes] = {}) -> Built:
    """A checkout with an output folder as expected, of which everything is committed; 6 MB to publish.

    `more` are files of the output folder, by name.
    """
    files = {f"out/{name}": random.Random(name).randbytes(size) for name, size in
             {"vmlinuz": 3 << 20, "kata/50-x.toml": 300, "sev-launch": 2 << 10}.items()}  # fmt: skip
    files |= {f"out/{name}": data for name, data in more.items()}
    sums = "".join(f"{sha256(data)}  {path.removeprefix('out/')}\n" for path, data in sorted(files.items()))
    files["out/SHA256SUMS"] = sums.encode()
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    (root / "out/sev-launch").chmod(0o755)
    (root / "recipes").mkdir()
    expected = "".join(f"{sha256(data)}  {path}\n" for path, data in sorted(files.items()))
    (root / "recipes/expected.sha256").write_text(expected)
    (root / ".gitignore").write_text("/out\n/cache\n")
    (root / "build.sh").write_text("#!/bin/sh\n")
    (root / "build.sh").chmod(0o755)
    commit(root, git, "init", "-q")
    commit(root, git, "add", "-A")
    commit(root, git, "commit", "-qm", "first")
    return checkout_at(root)


def checkout_at(root: Path) -> Built:
    """What small_checkout() has made there, or a copy of it."""
    cas = Cas(root=root / "cache")
    sources = [source(cas, "linux", 2 << 20), source(cas, "edk2", 1000)]
    packages = [Package(pin=pin(cas, "gcc", 500_000), architecture=Architecture.AMD64, trees=("build",))]
    return Built(root=root, folder=root / "out", profile="production", version="0.1.0", sources=sources,
                 packages=packages, cas=cas, sbom=lambda files: repr(sorted(files)).encode())  # fmt: skip


def commit(root: Path, git: str, *words: str) -> None:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run([git, "-C", root, *identity, *words], check=True, capture_output=True)


def pin(cas: Cas, name: str, size: int) -> Pin:
    digest = cas.put_bytes(random.Random(f"pin {name}").randbytes(size))
    origin = PoolFile(archive=Archive.DEBIAN, path=f"pool/main/{name}_1.0.tar.xz")
    lock = "recipes/sources.lock"
    return Pin(name=name, version="1.0-1", sha256=digest.sha256, size=digest.size, origin=origin, lock=lock)


def source(cas: Cas, name: str, size: int) -> Source:
    wanted = WantedSource(name=name, kind=Kind.DEBIAN_SOURCE, version="1.0-1", licence="GPL-2.0-only", package=name,
                          file=f"{name}_1.0.tar.xz")  # fmt: skip
    return Source(wanted=wanted, pin=pin(cas, name, size))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def killed_in(
    work: Callable[[str], object],
    server: Server,
    *,
    after: int,
    down: bool = False,
    ready: Callable[[], bool] = lambda: True,
) -> None:
    """Run work(host) in a process, through Between; SIGKILL when so many bytes have passed and it is ready."""
    found: list[int] = []

    def kill() -> None:
        while not ready():
            time.sleep(0.01)
        os.kill(found[0], signal.SIGKILL)

    with Between(server.port, after=after, then=kill, down=down) as between:
        process = multiprocessing.get_context("fork").Process(target=work, args=(between.host,))
        process.start()
        assert process.pid is not None
        found.append(process.pid)
        process.join(60)
    assert process.exitcode == -signal.SIGKILL


def empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
