# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""HOST[:PORT]/NAME[:TAG][@sha256:DIGEST], as the OCI distribution specification has its parts."""

import re
from dataclasses import dataclass

from tools.launcher.base.errors import UserError

HOST = re.compile(r"(?=.*[.:]|localhost$)(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FORM = "expected HOST[:PORT]/NAME:TAG or HOST[:PORT]/NAME@sha256:DIGEST"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A repository of a registry, and what is meant in it: a tag, or a digest, which counts alone where it is given."""

    host: str
    name: str
    tag: str = ""
    digest: str = ""

    @property
    def where(self) -> str:
        """The repository, for messages."""
        return f"{self.host}/{self.name}"


def parse(text: str) -> Reference:
    """UserError for what is no reference. Neither host nor tag is guessed."""
    host, slash, rest = text.partition("/")
    rest, at, digest = rest.partition("@")
    name, colon, tag = rest.partition(":")
    if not slash or HOST.fullmatch(host) is None:
        raise UserError(f"{text[:200]!r} names no registry's host", hint=_FORM)
    if _NAME.fullmatch(name) is None:
        raise UserError(f"{name[:200]!r} is no name of a repository", hint=_FORM)
    if colon and _TAG.fullmatch(tag) is None:
        raise UserError(f"{tag[:200]!r} is no tag", hint="a tag has letters, digits and . _ - only")
    if at and _DIGEST.fullmatch(digest) is None:
        raise UserError(f"{digest[:200]!r} is no digest", hint="expected sha256: and 64 hex digits")
    if not tag and not digest:
        raise UserError("neither tag nor digest", where=text[:200], hint=_FORM)
    return Reference(host=host, name=name, tag=tag, digest=digest)
