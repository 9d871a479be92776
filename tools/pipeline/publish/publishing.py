# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""./doit publish: what is refused, what is pushed, what is said about it.

out/ against SHA256SUMS, recipes/expected.sha256 and git ── objections? ── refused, unless told why not
layers, manifest, tools, provenance, signature ── registry or layout
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.publish import artifact, checkout, documents, expected, places, provenance
from tools.pipeline.publish.artifact import Labels
from tools.pipeline.publish.checkout import Checkout
from tools.pipeline.publish.documents import Document
from tools.pipeline.publish.places import Url
from tools.pipeline.registry import oci, target
from tools.pipeline.registry.connection import Options
from tools.pipeline.registry.oci import Content, Descriptor
from tools.pipeline.registry.target import Attachment, Target, Whole
from tools.pipeline.sign import keys, statements
from tools.pipeline.sign.keys import Signer
from tools.pipeline.sources.pins import Package, Source
from tools.sev.formats import SUMS_NAME
from tools.sev.registry.reference import Reference

OWN_LICENCE = "Apache-2.0"
_SUM = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._+/-]*)")
_SHOWN = 5  # changed files that an error names


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The options of the command as they were typed; "" where there was none."""

    to: str
    tag: str
    although: str
    key: str
    builder: str
    ca: str
    plain_http: bool
    without_tools: bool


def _no_documents(_: str) -> Sequence[Document]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Built:
    """What is published: an output folder, and the pins that its steps take. All of them are in the cache.

    `sbom` makes the document for the folder's files: name → SHA-256. `documents` makes what has a date or a judgement,
    and is attached to the artifact, of which it is given the digest. `taken` names the steps whose results are others'.
    """

    root: Path
    folder: Path
    profile: str
    version: str
    sources: Sequence[Source]
    packages: Sequence[Package]
    cas: Cas
    sbom: Callable[[Mapping[str, str]], bytes]
    documents: Callable[[str], Sequence[Document]] = _no_documents
    taken: Sequence[str] = ()


def run(built: Built, wish: Wish) -> Descriptor:
    """Publish; the artifact's descriptor. UserError for a wrong option, BuildError for what is refused or fails."""
    place = places.parse(wish.to, tag=wish.tag, root=built.root)
    options = Options(plain_http=wish.plain_http, ca=built.root / wish.ca if wish.ca else None)
    signer = keys.load(wish.key, root=built.root) if wish.key else None
    ours = checkout.look(built.root)
    names = listed(built.folder)
    objections = object_to(built, ours)
    if objections and not wish.although:
        hint = 'put that right, or say why it is to be published all the same: --although "WHY"'
        raise BuildError("is not published", where=f"{built.folder.name}/", hint=hint, details=objections)
    whole = made(built, ours, names)
    subject = whole.manifest.descriptor
    attachments = []
    if not wish.without_tools:
        packages = artifact.pinned(
            (package.pin for package in built.packages),
            cas=built.cas, root=built.root, media_type=artifact.PACKAGE, folder="tools",
        )  # fmt: skip
        attachments.append(Attachment(whole=artifact.tools(packages, labels=_labels(built), subject=subject)))
    listed_documents = built.documents(subject.digest)
    attachments += [documents.attached(one, subject=subject) for one in listed_documents]
    said = provenance.predicate(
        profile=built.profile,
        version=built.version,
        checkout=ours,
        pins=[*(source.pin for source in built.sources), *(package.pin for package in built.packages)],
        builder=wish.builder,
        although=wish.although,
        objections=objections,
    )
    tag = wish.tag
    if isinstance(place, Url):
        wholes = [whole, *(attachment.whole for attachment in attachments)]
        tally = places.push_plain(place, options, wholes, *_statement(whole, said, signer))
    else:
        tag = tag or (place.tag if isinstance(place, Reference) else built.version)
        where_to = places.target(place, options)
        try:
            attachments += _statements(where_to, whole, said, signer, places.name(place))
            attachments += documents.signed(where_to, whole, listed_documents, signer)
            tally = target.push(where_to, whole, attachments, tag=tag)
        finally:
            where_to.close()
    ui.line("")
    ui.line(f"   {places.name(place) or place}")
    ui.line(f"   {'tag':<12}{tag or 'none'}")
    ui.line(f"   {'digest':<12}{subject.digest}")
    ui.line(f"   {'signed':<12}{f'key {keys.fingerprint(signer.public)}' if signer else 'no (--key)'}")
    ui.line(f"   {'sent':<12}{tally.sent} blobs, {ui.size(tally.bytes_sent)}; {tally.there} were there")
    for objection in objections:
        ui.line(f"   {'although':<12}{objection}")
    return subject


def made(built: Built, ours: Checkout, names: Mapping[str, str]) -> Whole:
    """The artifact: the files of SHA256SUMS (name → SHA-256), SBOM, sources, checkout. Its digest is what they say."""
    return artifact.guest(
        built.folder,
        [*names, SUMS_NAME],
        labels=_labels(built),
        sbom=built.sbom(names),
        sources=artifact.pinned(
            (source.pin for source in built.sources),
            cas=built.cas, root=built.root, media_type=artifact.SOURCE, folder="sources",
        ),
        checkout=ours.archive(),
    )  # fmt: skip


def _labels(built: Built) -> Labels:
    return Labels(
        profile=built.profile,
        version=built.version,
        licences=[OWN_LICENCE, *(source.wanted.licence for source in built.sources)],
    )


def _statement(whole: Whole, said: dict[str, Any], signer: Signer | None) -> tuple[Content, str]:
    """The provenance for a server of plain files, and its name there."""
    payload, _, _ = provenance.statement(whole, said, key=keys.fingerprint(signer.public) if signer else "")
    if signer is None:
        return oci.of_bytes(payload, statements.STATEMENT), "provenance.json"
    return oci.of_bytes(statements.bundle(payload, signer), statements.BUNDLE), "provenance.sigstore.json"


def _statements(
    where_to: Target, whole: Whole, said: dict[str, Any], signer: Signer | None, name: str
) -> list[Attachment]:
    """The provenance and the signature, but for those that are there already."""
    subject = whole.manifest.descriptor
    key = keys.fingerprint(signer.public) if signer else ""
    payload, says, created = provenance.statement(whole, said, key=key)
    found = []
    if not statements.said(where_to, subject, says):
        found.append(statements.attached(payload, signer, subject=subject, says=says, created=created))
    simple = statements.signed(where_to, subject, name, signer) if signer else None
    return [*found, simple] if simple else found


def listed(folder: Path) -> dict[str, str]:
    """What SHA256SUMS says, name → SHA-256, after comparing every file with it; BuildError when one differs."""
    shown = f"{folder.name}/{SUMS_NAME}"
    try:
        lines = (folder / SUMS_NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise BuildError(f"cannot be read: {error.strerror}", where=shown, hint="build it first") from None
    found = {}
    for line in lines:
        match = _SUM.fullmatch(line)
        if match is None or ".." in match[2].split("/"):
            raise BuildError("is not a list of digests", where=shown, hint="build it again")
        path = folder / match[2]
        if not path.is_file() or path.is_symlink() or files.of_file(path) != match[1]:
            raise BuildError(f"is not what {SUMS_NAME} says", where=f"{folder.name}/{match[2]}", hint="build it again")
        found[match[2]] = match[1]
    return found


def object_to(built: Built, ours: Checkout) -> list[str]:
    """What speaks against publishing this, a line each."""
    found = []
    verdict = expected.verdict(built.root, built.folder)
    if not verdict.good:
        found.append(verdict.line)
    if ours.changes:
        shown = ", ".join(change[3:] for change in ours.changes[:_SHOWN])
        more = len(ours.changes) - _SHOWN
        found.append(f"the checkout differs from its commit: {shown}{f' and {more} more' if more > 0 else ''}")
    if built.taken:
        # A provenance says who built: that must be who signs it.
        shown, more = ", ".join(built.taken[:_SHOWN]), len(built.taken) - _SHOWN
        what = f"{len(built.taken)} steps were not run here: {shown}{f' and {more} more' if more > 0 else ''}"
        found.append(f"{what} (without {ambient.REMOTE} they are)")
    return found
