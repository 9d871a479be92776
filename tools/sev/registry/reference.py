# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""HOST[:PORT]/NAME[:TAG][@sha256:DIGEST], as the OCI distribution specification has its parts."""

import re
from dataclasses import dataclass

from tools.sev.errors import FormatError

_HOST = re.compile(r"(?=.*[.:]|localhost$)(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::([0-9]{1,5}))?")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A repository of a registry, and what is meant in it: a tag, a digest, or neither (both are empty then)."""

    host: str
    name: str
    tag: str = ""
    digest: str = ""

    @property
    def where(self) -> str:
        """The repository, for messages."""
        return f"{self.host}/{self.name}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.where}{tag}{'@' if self.digest else ''}{self.digest}"


def is_host(text: str) -> bool:
    """Whether it is HOST or HOST:PORT."""
    found = _HOST.fullmatch(text)
    return found is not None and (found[1] is None or 0 < int(found[1]) < 1 << 16)


def parse(text: str, *, form: str, where: str | None = None) -> Reference:
    """FormatError for what is no reference, mostly with `form` as the hint. The host is never guessed.

    One with a password in it is not repeated.
    """
    before, at, after = text.rpartition("@")
    # A digest has no slash, and what is before it has no other @; without a host before it, it is known by its form.
    if at and ("/" in after or "@" in before or ("/" not in before and DIGEST.fullmatch(after) is None)):
        hint = "docker login HOST; name HOST/NAME alone"
        raise FormatError("has a user or a password in it", where=where, hint=hint)
    host, slash, rest = text.partition("/")
    rest, at, digest = rest.partition("@")
    name, colon, tag = rest.partition(":")
    if not slash or _HOST.fullmatch(host) is None:
        raise FormatError(f"{text[:200]!r} names no registry's host", where=where, hint=form)
    if not is_host(host):
        raise FormatError(f"{host.rpartition(':')[2]} is no port", where=where, hint="a port is in 1…65535")
    if _NAME.fullmatch(name) is None:
        raise FormatError(f"{name[:200]!r} is no name of a repository", where=where, hint=form)
    if colon and TAG.fullmatch(tag) is None:
        raise FormatError(f"{tag[:200]!r} is no tag", where=where, hint="a tag has letters, digits and . _ - only")
    if at and DIGEST.fullmatch(digest) is None:
        raise FormatError(f"{digest[:200]!r} is no digest", where=where, hint="expected sha256: and 64 hex digits")
    return Reference(host=host, name=name, tag=tag, digest=digest)
