# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What has a date or a judgement, attached to an artifact: CVE state, the page for people.

document ── referrer, as it is ── in-toto statement with it as predicate, signed: for those that somebody relies on
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tools.pipeline.base import files
from tools.pipeline.registry import oci, target
from tools.pipeline.registry.oci import Descriptor
from tools.pipeline.registry.target import Attachment, Target, Whole
from tools.pipeline.sign import keys, statements
from tools.pipeline.sign.keys import Signer


@dataclass(frozen=True, kw_only=True)
class Document:
    """`created` is a time as RFC 3339 has it. `predicate`: its type in a statement, empty for what is not signed."""

    name: str
    media_type: str
    data: bytes
    created: str
    predicate: str = ""


def attached(document: Document, *, subject: Descriptor) -> Attachment:
    """The document itself, as a referrer. The same bytes of the same date are attached once."""
    content = oci.of_bytes(document.data, document.media_type, annotations={oci.TITLE: document.name})
    annotations = {oci.CREATED: document.created, oci.TITLE: document.name}
    return Attachment(whole=target.whole(document.media_type, [content], annotations=annotations, subject=subject))


def signed(where: Target, whole: Whole, documents: Sequence[Document], signer: Signer | None) -> list[Attachment]:
    """Statements about the artifact with documents in them, but for those that are there already."""
    if signer is None:
        return []
    subject, found = whole.manifest.descriptor, []
    for document in documents:
        if not document.predicate:
            continue
        said = json.loads(document.data)
        payload = statements.statement([("sev-artifacts", subject.sha256)], document.predicate, said)
        says = files.of_bytes(payload + keys.fingerprint(signer.public).encode())
        if not statements.said(where, subject, says):
            made = statements.attached(payload, signer, subject=subject, says=says, created=document.created)
            found.append(made)
    return found
