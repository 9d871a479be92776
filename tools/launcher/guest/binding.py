# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Who decides what runs, and the kernel command line that says so: launched and digested byte for byte."""

import hashlib
from pathlib import Path

from tools.launcher.base import files
from tools.launcher.base.errors import UserError
from tools.launcher.channel.protocol import RootKind
from tools.launcher.config.runtime_config import RuntimeConfig
from tools.launcher.guest import verity as verity_image
from tools.launcher.guest.rootfs import Rootfs
from tools.sev.agent import agent_abi
from tools.sev.errors import FormatError
from tools.sev.limits import CMDLINE_MAX
from tools.sev.workload import reader
from tools.sev.workload.canonical import DOCUMENT_MAX, decode
from tools.sev.workload.document import Document, Tar, Verity

_CHUNK = 1 << 20
_OTHER_ROOT = "give the root that the document was made of, or make the document anew with `sev-launch workload`"


class Unbound:
    """The host decides."""


UNBOUND = Unbound()
Binding = Document | Unbound
"""Who decides: a workload document, or the host."""


def read_document(path: Path, *, canonical: bool = True) -> Document:
    """A workload document from a file, in its one form or (`canonical` False) in any; UserError says what is wrong."""
    where = str(path)
    data = files.read(path, DOCUMENT_MAX)
    try:
        return reader.from_value(decode(data, where=where, canonical=canonical), where=where)
    except FormatError as error:
        raise UserError.of(error) from None


def word(binding: Binding) -> str:
    """The word on the kernel command line that says it."""
    return agent_abi.workload_word(binding.sha256) if isinstance(binding, Document) else agent_abi.UNBOUND


def compose(
    config: RuntimeConfig, *, append: str, binding: Binding | None, verity: str | None, rootfs: Path | None
) -> str:
    """The command line of the config, plus what the options say; nothing else may touch it.

    `verity` is the host's own demand of an unbound guest's root; a workload document has it in itself.
    """
    if binding is None:
        raise UserError(
            "nothing says what runs, which is part of the launch digest",
            hint="give --rootfs and a command behind --, or --workload FILE, or --unbound",
        )
    given = " ".join(part for part in (config.cmdline, append) if part)
    if any(each.partition("=")[0] in (agent_abi.UNBOUND, agent_abi.WORKLOAD) for each in given.split()):
        raise UserError("the kernel command line says by itself what runs", hint="say it with --workload or --unbound")
    if isinstance(binding, Unbound) and verity is not None and rootfs is not None:
        given = agent_abi.with_binding(given, verity_image.read_verity(rootfs, root_hash=verity).cmdline)
    text = agent_abi.with_binding(given, word(binding))
    if len(text) > CMDLINE_MAX:
        raise UserError(f"the kernel command line has {len(text)} bytes, the kernel takes {CMDLINE_MAX}")
    keys = [each.partition("=")[0] for each in text.split() if each.startswith("sev_agent.")]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"{key} stands twice on the kernel command line; the agent refuses that")
    return text


def root_of(image: Rootfs, *, verity: str | None, where: str) -> Tar | Verity:
    """What a workload document says of this root; `verity` is its dm-verity root hash."""
    if verity is not None:
        found = verity_image.read_verity(image.path, root_hash=verity)
        return Verity(root_hash=found.root_hash, salt=found.salt, layers=(found.data_blocks,))
    if image.kind is RootKind.EROFS:
        raise UserError(
            "an EROFS image is bound by its dm-verity root hash",
            where=where,
            hint="give --verity HASH (docs/howto.md makes it), or --unbound",
        )
    return _tar_of(image)


def _tar_of(image: Rootfs) -> Tar:
    digest = hashlib.sha256()
    with image.path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return Tar(length=image.length, sha256=digest.hexdigest())


def check_root(document: Document, image: Rootfs, *, where: str) -> None:
    """UserError when the image is not the document's; the agent would say so, much later."""
    wanted = document.root
    if isinstance(wanted, Tar) is not (image.kind is RootKind.TAR):
        kind = "a tar" if isinstance(wanted, Tar) else "an EROFS image under dm-verity"
        raise UserError(f"the workload document's root is {kind}, this is another", where=where, hint=_OTHER_ROOT)
    if isinstance(wanted, Verity):
        verity_image.check_layers(image.path, wanted, where=where)
        return
    found = _tar_of(image)
    if found != wanted:
        said, this = (f"{tar.length} bytes with SHA-256 {tar.sha256}" for tar in (wanted, found))
        what = f"the workload document's root is {said}, this is {this}"
        raise UserError(what, where=where, hint=_OTHER_ROOT)
