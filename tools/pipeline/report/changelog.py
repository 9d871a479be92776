# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Debian's changelogs as a record of CVEs: which version of a source package names which, and in which words.

NAME_VERSION.debian.tar.xz ── debian/changelog, debian/patches ── mentions

A line below "New upstream …" tells what the authors' own release has; any other tells of a patch of Debian's.
"""

import email.utils
import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

from tools.pipeline.base.errors import BuildError

CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,7}")
_HEAD = re.compile(r"([a-z0-9][a-z0-9+.-]+) \(([0-9][A-Za-z0-9.+:~-]*)\) .*")
_FOOT = re.compile(r" -- .*>  (.+)")
_BULLETS = ("- ", "+ ")
_ITEM = re.compile(r"(?:  \* |    [-+] )(.*)")
_TAG = re.compile(r"^(\[[^\]]{1,60}\] )+")
_NOTE = re.compile(r"\s*\([^()]*CVE-[^()]*\)")
_MAX = 64 << 20  # bytes of one member; the kernel's changelog has 4 MB


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A line of the changelog that names a CVE; `upstream`: the authors' release has it, no patch of Debian's."""

    cve: str
    version: str
    subject: str
    upstream: bool


@dataclass(frozen=True, kw_only=True)
class Changelog:
    """Of a source package in one version. `date` is the day of that version, as YYYY-MM-DD.

    `patches` are the subjects of the patches that Debian applies to the authors' archive.
    """

    package: str
    version: str
    date: str
    mentions: tuple[Mention, ...]
    patches: frozenset[str] = field(default_factory=frozenset)

    @property
    def cves(self) -> dict[str, Mention]:
        """The newest mention of each CVE; one of the authors' releases counts more than one of a patch."""
        found: dict[str, Mention] = {}
        for mention in self.mentions:
            if mention.cve not in found or (mention.upstream and not found[mention.cve].upstream):
                found[mention.cve] = mention
        return found

    def patched(self, mention: Mention) -> bool:
        """Whether it is a patch of Debian's that is applied to this version: the authors' archive lacks it."""
        return not mention.upstream and _key(mention.subject) in self.patches


def read(archive: bytes, *, where: str) -> Changelog:
    """Of NAME_VERSION.debian.tar.xz. BuildError when it is not such an archive."""
    text, patches = "", set()
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:*") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if not member.isfile() or member.size > _MAX:
                    continue
                if name == "debian/changelog" or name.startswith("debian/patches/"):
                    stream = tar.extractfile(member)
                    data = stream.read().decode("utf-8", "replace") if stream else ""
                    if name == "debian/changelog":
                        text = data
                    elif subject := _subject(data):
                        patches.add(_key(subject))
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise BuildError(f"is no Debian source archive: {error}", where=where, hint="./doit fetch") from None
    return parse(text, patches=frozenset(patches), where=where)


def parse(text: str, *, where: str, patches: frozenset[str] = frozenset()) -> Changelog:
    """deb-changelog(5). BuildError when there is no entry in it."""
    package = first = version = date = ""
    upstream = False
    mentions: list[Mention] = []
    for line in _items(text):
        if line.startswith("  * "):
            upstream = line.startswith("  * New upstream")
        if line.startswith(" -- ") and (foot := _FOOT.fullmatch(line)):
            date = date or _day(foot[1])
        elif line[:1].strip() and (head := _HEAD.fullmatch(line)):
            version, upstream = head[2], False
            package, first = package or head[1], first or version
        elif "CVE-" in line and (item := _ITEM.fullmatch(line)):
            subject = _TAG.sub("", _NOTE.sub("", item[1])).strip()
            mentions += [
                Mention(cve=cve, version=version, subject=subject, upstream=upstream)
                for cve in dict.fromkeys(CVE.findall(item[1]))
            ]
    if not first or not date:
        raise BuildError("has no entry that can be read", where=f"{where}: debian/changelog")
    return Changelog(package=package, version=first, date=date, mentions=tuple(mentions), patches=patches)


def _items(text: str) -> Iterator[str]:
    """Lines, with those that go on joined to where they began."""
    begun: list[str] = []
    for line in text.splitlines():
        if begun and line.startswith("    ") and line[4:6] not in _BULLETS:
            begun.append(line.strip())
            continue
        if begun:
            yield " ".join(begun)
        begun = [line.rstrip()]
    if begun:
        yield " ".join(begun)


def _day(text: str) -> str:
    try:
        return email.utils.parsedate_to_datetime(text).date().isoformat()
    except ValueError:
        return ""


def _subject(patch: str) -> str:
    """What a patch says that it is (DEP-3, or as git writes it)."""
    head = patch.partition("\n---")[0][:8192]
    match = re.search(r"^(?:Subject|Description):[ \t]*(.+(?:\n[ \t]+\S.*)*)", head, re.MULTILINE)
    return re.sub(r"^(\[[^\]]*\]\s*)+", "", " ".join(match[1].split())) if match else ""


def _key(subject: str) -> str:
    return re.sub(r"[\s.]+", " ", subject).strip().lower()
