# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Ask apt what a list of packages needs, under a private configuration; only `./doit lock` does.

apt brings what must not be written twice: the check of the archive's signature and the dependency solver.
It sees nothing of the machine but the settings of how to reach a mirror: own sources, an empty status file
(so that the closure is complete), own lists.
"""

import os
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cmp_to_key
from pathlib import Path

from tools.pipeline.base import ambient, files
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.sources.mirrors import REMEDY, SETTING, Mirrors, unknown
from tools.pipeline.sources.pins import Archive, PoolFile
from tools.pipeline.sources.wanted import NO_OLDER, VERSION, Architecture, Older

KEYRINGS = tuple(Path(f"/usr/share/keyrings/debian-archive-keyring.{suffix}") for suffix in ("gpg", "pgp"))
_PASSED_ON = (
    "Acquire::http",
    "Acquire::https",
    "Acquire::Check-Valid-Until",
    "Acquire::Check-Date",
    "Acquire::Retries",
)
_LINE = re.compile(r"'([^']+)' (\S+) (\d+) SHA256:([0-9a-f]{64})")
_TAIL = 3  # lines of apt's complaint that are shown


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file of the archive as the signed index describes it. `size` is in bytes."""

    file: str
    origin: PoolFile
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Apt:
    """apt with its lists in `folder`; `update()` comes first.

    `sources` are suites whose source packages it knows, too.
    """

    folder: Path
    suite: str
    older: Older = NO_OLDER
    sources: tuple[str, ...] = ()
    architecture: Architecture
    mirrors: Mirrors

    def update(self) -> None:
        """Fetch the indexes and check their signatures."""
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        files.write_atomically(self.folder / "status", b"")
        files.write_atomically(self.folder / "preferences", b"")
        # A mirror's or a proxy's URL may hold a password, and others may be able to look into a checkout.
        # fsencode: both may name folders, whose names are bytes.
        files.write_atomically(self.folder / "sources.list", os.fsencode(self._sources()), mode=0o600)
        files.write_atomically(self.folder / "apt.conf", os.fsencode(self._configuration()), mode=0o600)
        self._run("apt-get", "-qq", "-o", "APT::Update::Error-Mode=any", "update")

    def fingerprint(self) -> str:
        """Changes whenever an index does: over the signed files that hold the indexes' digests."""
        lists = sorted((self.folder / "state/lists").glob("*Release"))
        return files.of_bytes("".join(f"{path.name} {files.of_file(path)}\n" for path in lists).encode())

    def closure(
        self, packages: Sequence[str], *, prefer: Mapping[str, str] | None = None, avoid: Iterable[tuple[str, str]] = ()
    ) -> list[Found]:
        """The packages and everything that they depend on, in the newest versions of the suite.

        From the older suite comes nothing but what `older` names, and that only while the suite has it in no version.
        `prefer` gives versions (by package) that are taken where the index has them, `avoid` pairs of package
        and version that are never taken; `src:NAME` are all packages of a source.
        """
        choices = [*((name, version, 1001) for name, version in sorted((prefer or {}).items()))]
        choices += [(name, version, -1) for name, version in sorted(avoid)]
        # apt_preferences(5): above 1000 even an older version is taken, below 0 never. Of the records that name a
        # package the first one counts that fits a version, and only where none does, those for all packages.
        records = [(name, f"version {version}", priority) for name, version, priority in choices]
        # A suite is a codename or an alias, as its signed file says; "-updates" and the like come after either.
        releases = [f"release {key}={self.older.suite}*" for key in "na" if self.older.suite]
        # 100 is below the 500 that the suite's versions have.
        records += [(name, release, 100) for name in self.older.packages for release in releases]
        records += [("*", release, -1) for release in releases]
        text = "\n".join(f"Package: {name}\nPin: {pin}\nPin-Priority: {p}\n" for name, pin, p in records)
        files.write_atomically(self.folder / "preferences", text.encode())
        options = ("-qq", "--yes", "--no-install-recommends", "--print-uris")
        output = self._run("apt-get", *options, "install", *packages)
        return self._parse(output)

    def source(self, package: str, version: str) -> list[Found]:
        """The files of a source package; none when the index has no such version."""
        if version not in self.source_versions(package):
            return []
        options = ("-qq", "--print-uris", "--only-source")
        return self._parse(self._run("apt-get", *options, "source", f"{package}={version}"))

    def source_versions(self, package: str) -> list[str]:
        """The versions of a source package that the index has, sorted as text."""
        try:
            text = self._run("apt-cache", "--only-source", "showsrc", package)
        except BuildError:
            return []
        return sorted(set(re.findall(rf"^Version: ({VERSION})$", text, flags=re.MULTILINE)))

    def precedes(self, version: str, other: str) -> bool:
        """Whether a version of a package comes before another, as dpkg compares them."""
        status = _start(["dpkg", "--compare-versions", version, "lt", other], {}).returncode
        if status not in {0, 1}:
            raise BuildError(f"dpkg cannot compare the versions {version} and {other}")
        return status == 0

    def newest_first(self, versions: Iterable[str]) -> list[str]:
        """The versions as dpkg sorts them, newest first."""

        def compare(a: str, b: str) -> int:
            return 1 if self.precedes(a, b) else -1 if self.precedes(b, a) else 0

        return sorted(versions, key=cmp_to_key(compare))

    def _bases(self) -> dict[Archive, str]:
        bases = {}
        for archive in Archive:
            of_archive = self.mirrors.of_archive(archive)
            if not of_archive:
                raise UserError(unknown(archive), hint=REMEDY)
            bases[archive] = of_archive[0]
        return bases

    def _sources(self) -> str:
        keyring = next((path for path in KEYRINGS if path.is_file()), None)
        if keyring is None:
            raise UserError(
                f"{KEYRINGS[0]} is missing, so the index's signature cannot be checked",
                hint="install debian-archive-keyring",
            )
        bases = self._bases()
        parts = {Archive.DEBIAN: ("", "-updates"), Archive.SECURITY: ("-security",)}
        # The older suite's sources would only be more versions to choose from.
        kinds = {self.suite: ("deb", "deb-src"), self.older.suite: ("deb",)}
        lines = [
            f"{kind} [signed-by={keyring}] {bases[archive]} {suite}{part} main\n"
            for suite in kinds
            if suite
            for archive in Archive
            for part in parts[archive]
            for kind in kinds[suite]
        ]
        lines += [f"deb-src [signed-by={keyring}] {bases[Archive.DEBIAN]} {suite} main\n" for suite in self.sources]
        return "".join(lines)

    def _configuration(self) -> str:
        settings: Mapping[str, str] = {
            "Dir::State": f"{self.folder}/state",
            "Dir::State::status": f"{self.folder}/status",
            "Dir::Cache": f"{self.folder}/cache",
            "Dir::Etc::sourcelist": f"{self.folder}/sources.list",
            # APT_CONFIG is read before the machine's own files: here they are told not to be.
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": f"{self.folder}/preferences",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::Etc::trusted": "/dev/null",
            "Dir::Etc::trustedparts": "/dev/null",
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Install-Recommends": "false",
            "APT::Install-Suggests": "false",
            # Only matters for root: the lists may lie where the user _apt may not go.
            "APT::Sandbox::User": "root",
            "Acquire::ForceHash": "SHA256",
            "Acquire::Languages": "none",
        }
        lines = [f'{name} "{value}";\n' for name, value in settings.items()]
        passed = self._host_settings()
        return "".join(lines) + passed

    def _host_settings(self) -> str:
        """How this machine reaches its mirrors: proxies, retries, and whether dates are checked."""
        shown = _start(["apt-config", "dump", "--format", '%F "%v";%n', *_PASSED_ON], {})
        return "".join(line + "\n" for line in shown.stdout.splitlines() if not line.endswith(' "";'))

    def _run(self, program: str, *arguments: str) -> str:
        result = _start([program, *arguments], {"APT_CONFIG": f"{self.folder}/apt.conf"})
        if result.returncode:
            lines = [line for line in (result.stderr + result.stdout).splitlines() if line.startswith("E:")]
            said = " ".join(lines[:_TAIL]) or f"exit status {result.returncode}"
            raise BuildError(f"{program} {arguments[-1]} failed: {said}", hint=f"check the mirrors ({SETTING})")
        return result.stdout

    def _parse(self, output: str) -> list[Found]:
        found = []
        bases = self._bases()
        for line in output.splitlines():
            if not line.startswith("'"):
                continue
            match = _LINE.fullmatch(line.strip())
            # apt writes a place of this machine in its own way.
            url = re.sub(r"^file:/(?!/)", "file:///", match[1]) if match else ""
            archive = next((a for a, base in bases.items() if url.startswith(f"{base}/")), None)
            if match is None or archive is None:
                raise BuildError(f"apt answered something that pins nothing: {line!r}")
            path = urllib.parse.unquote(url.removeprefix(f"{bases[archive]}/"))
            found.append(
                Found(
                    file=urllib.parse.unquote(match[2]),
                    origin=PoolFile(archive=archive, path=path),
                    size=int(match[3]),
                    sha256=match[4],
                )
            )
        if not found:
            raise BuildError("apt named no file")
        return found


def _start(argv: Sequence[str], extra: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a program of the host's apt; its messages are parsed, so they must be in English."""
    program = shutil.which(argv[0])
    if program is None:
        raise UserError(f"{argv[0]} is not installed", hint="./doit lock needs a machine with apt; building does not")
    proxies = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    environment = {**ambient.host_environment("PATH", *proxies), "LC_ALL": "C.UTF-8", **extra}
    return subprocess.run(
        [program, *argv[1:]],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )
