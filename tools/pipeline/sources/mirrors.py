# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Where pinned files may be fetched: SEV_ARTIFACTS_MIRROR, else the mirrors of the machine's own apt.

No host stands in the repository. A mirror is not trusted either: it is a place to look for bytes whose
SHA-256 is known.
"""

import re
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tools.pipeline.base import ui
from tools.pipeline.base.errors import UserError
from tools.pipeline.sources import pypi
from tools.pipeline.sources.pins import Archive, Pin, PoolFile, Urls, Wheel
from tools.sev.errors import mask, printable

SETTING = "SEV_ARTIFACTS_MIRROR"
REMEDY = (
    f'set {SETTING} to base URLs, for example "http://HOST/debian http://HOST/debian-security", '
    "or to the URL of a source bundle (http:, https: or file:)"
)
_SCHEMES = ("http", "https", "file")


def unknown(archive: Archive) -> str:
    """What is wrong when an archive has no mirror."""
    return f"no mirror of the {archive} archive is known: neither apt's configuration nor {SETTING} names one"


@dataclass(frozen=True, kw_only=True)
class Mirror:
    """A base URL without a trailing '/'. `archive` None: a bundle, with everything below it.

    `oci`: a bundle that is a repository of a registry (https://HOST/v2/NAME), or an OCI image layout in a folder.
    """

    base: str
    archive: Archive | None
    oci: bool = False

    def urls(self, pin: Pin) -> list[str]:
        """Where this mirror would have the pin; most likely place first."""
        if self.oci:
            # Image layouts are files, registries know the distribution specification's paths.
            separator = "/" if self.base.startswith("file:") else ":"
            return [f"{self.base}/blobs/sha256{separator}{pin.sha256}"]
        found = []
        if self.archive is None:
            # A bundle is laid out like the cache, so that a copy of a cache is a bundle.
            found.append(f"{self.base}/sha256/{pin.sha256[:2]}/{pin.sha256}")
        if isinstance(pin.origin, PoolFile):
            # '+' is quoted because some object stores take it for a space.
            path = urllib.parse.quote(pin.origin.path, safe="/~")
            if self.archive is None:
                found.append(f"{self.base}/{pin.origin.archive}/{path}")
            elif self.archive is pin.origin.archive:
                found.append(f"{self.base}/{path}")
        return found


@dataclass(frozen=True, kw_only=True)
class Mirrors:
    """All mirrors, in the order in which they are tried. `alone`: nothing is looked for elsewhere."""

    mirrors: tuple[Mirror, ...]
    alone: bool = False

    def urls(self, pin: Pin) -> tuple[str, ...]:
        """Every place for a pin, in turn. A file of the archive without any is a UserError that says what to set."""
        found: list[str] = []
        for mirror in self.mirrors:
            found += mirror.urls(pin)
        if isinstance(pin.origin, PoolFile) and pin.origin.archive is Archive.SECURITY:
            # A point release moves such files into the main archive.
            moved = PoolFile(archive=Archive.DEBIAN, path=pin.origin.path.replace("pool/updates/", "pool/", 1))
            for mirror in self.mirrors:
                found += mirror.urls(replace(pin, origin=moved))
        if isinstance(pin.origin, Urls) and not self.alone:
            found += pin.origin.urls
        if isinstance(pin.origin, Wheel) and not self.alone:
            found.append(pypi.place(pin.origin))
        if isinstance(pin.origin, PoolFile) and not found:
            raise UserError(unknown(pin.origin.archive), where=pin.where, hint=REMEDY)
        return tuple(dict.fromkeys(found))

    def of_archive(self, archive: Archive) -> tuple[str, ...]:
        """Base URLs of one archive, for apt: its own mirrors before bundles, which need not have an index."""
        own = [m.base for m in self.mirrors if m.archive is archive]
        return (*own, *(f"{m.base}/{archive}" for m in self.mirrors if m.archive is None and not m.oci))


def archive_of(url: str) -> Archive | None:
    """The archive that a base URL names: its last path component that is `debian` or `debian-security`.

    Not simply the last component: a snapshot mirror has the time after it.
    """
    parts = urllib.parse.urlsplit(url).path.split("/")
    for part in reversed(parts):
        if part in set(Archive):
            return Archive(part)
    return None


def _usable(url: str) -> bool:
    """Whether it is a base URL of a scheme that we speak; file:///path has no host, the others need one."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:  # an address without its bracket, a port that is none
        return False
    return parts.scheme in _SCHEMES and (parts.scheme == "file") == (not parts.hostname) and port != 0


def from_setting(words: Sequence[str]) -> Mirrors:
    """The mirrors in SEV_ARTIFACTS_MIRROR: words of the form `URL` or `ARCHIVE=URL`.

    `ARCHIVE` is `debian`, `debian-security`, `bundle` or `oci`; without it the URL's path decides, and a path
    that names neither archive is a bundle's.
    """
    mirrors = []
    for word in words:
        prefix, equals, rest = word.partition("=")
        named = bool(equals) and prefix in {"bundle", "oci", *Archive}
        url = (rest if named else word).rstrip("/")
        if not _usable(url):
            says = "a base URL (http://HOST/…, https://HOST/… or file:///…)"
            raise UserError(f"{word!r} is not {says}", where=SETTING, hint=REMEDY)
        archive = archive_of(url)
        if named:
            archive = None if prefix in {"bundle", "oci"} else Archive(prefix)
        mirrors.append(Mirror(base=url, archive=archive, oci=named and prefix == "oci"))
    return Mirrors(mirrors=tuple(dict.fromkeys(mirrors)))


def from_apt(folder: Path) -> Mirrors:
    """The Debian mirrors of apt's configuration folder (normally /etc/apt), sorted files first to last.

    sources.list(5): one-line style in sources.list and sources.list.d/*.list, deb822 style in
    sources.list.d/*.sources. Other archives (a vendor's own repository, another distribution) are left out.
    """
    parts = folder / "sources.list.d"
    extra = sorted(parts.iterdir()) if parts.is_dir() else []
    mirrors = []
    for path in [folder / "sources.list", *extra]:
        if path.suffix not in {".list", ".sources"} or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        urls = _deb822(text) if path.suffix == ".sources" else _one_line(text)
        for url in (real for listed in urls for real in _resolve(listed)):
            if not url.startswith(tuple(f"{scheme}:" for scheme in _SCHEMES)):
                continue  # cdrom:, a method of somebody's own
            if not _usable(url):
                hint = f"correct it, or set {SETTING}"
                raise UserError(f"{url!r} is not the URL of an archive", where=str(path), hint=hint)
            archive = archive_of(url)
            if archive is not None:
                mirrors.append(Mirror(base=url.rstrip("/"), archive=archive))
    return Mirrors(mirrors=tuple(dict.fromkeys(mirrors)))


def _one_line(text: str) -> list[str]:
    found = (re.match(r"\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(\S+)\s", line) for line in text.splitlines())
    return [match[1] for match in found if match]


def _deb822(text: str) -> list[str]:
    urls: list[str] = []
    without_comments = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n[ \t]*\n", without_comments):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line[:1] in {" ", "\t"}:
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                key, _, value = line.partition(":")
                name = key.strip().lower()
                fields[name] = value.strip()
        if fields.get("enabled", "yes").lower() not in {"no", "false", "0", "off", "without", "disable"}:
            urls += fields.get("uris", "").split()
    return urls


def _resolve(url: str) -> list[str]:
    """Cloud images list their mirrors in a file of its own: `mirror+file:/etc/apt/mirrors/debian.list`."""
    if not url.startswith("mirror+file:"):
        return [url]
    path = Path("/" + url.removeprefix("mirror+file:").lstrip("/"))
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.split()[0] for line in lines if line.strip() and not line.lstrip().startswith("#")]


def discover(setting: Sequence[str], *, apt: Path = Path("/etc/apt")) -> Mirrors:
    """The mirrors to use: the setting if there is one, else apt's, else none.

    Mirrors of the main archive have debian-security beside it more often than not, so where only they are known,
    that is where it is looked for. A minimal Debian 13 comes without its own entry for it.
    """
    found = from_setting(setting) if setting else from_apt(apt)
    if any(m.archive is not Archive.DEBIAN for m in found.mirrors):
        return found
    beside = (re.sub(r"/debian(/[^/]*)?$", rf"/{Archive.SECURITY}\1", m.base) for m in found.mirrors)
    derived = tuple(Mirror(base=base, archive=Archive.SECURITY) for base in beside if archive_of(base))
    if derived:
        source = SETTING if setting else str(apt)
        places = printable(mask(", ".join(m.base for m in derived)))
        ui.line(f"   note: {source} names no mirror of {Archive.SECURITY}; looking for it at {places}")
    return Mirrors(mirrors=(*found.mirrors, *derived))
