# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The step that packs the initramfs: initramfs/manifest.toml → the list for the kernel's own usr/gen_init_cpio.

    manifest.toml ── load ── Manifest ── listing ──┐
    contents, at Entry.inside ─────────────────────┼── PACK, in the sandbox ── initramfs.cpio, initramfs.cpio.zst
    gen_init_cpio.c of the default kernel ─────────┘

The archive's bytes depend on the list and the contents only: gen_init_cpio numbers the members from 721 on, in the
order of the list, and takes times from its option.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path, PurePosixPath

from tools.pipeline.base import names, toml_reader, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.base.toml_reader import Table
from tools.pipeline.engine.step import CheckoutFile, Literal, Output, Step
from tools.pipeline.guest import agent
from tools.pipeline.sandbox.sandbox import EPOCH

SCHEMA = 2

FILE = "initramfs/manifest.toml"
CPIO, COMPRESSED = "initramfs.cpio", "initramfs.cpio.zst"
PACKER, LIST = "/inputs/gen_init_cpio.c", "/inputs/initramfs.list"
"""Where PACK finds the kernel's usr/gen_init_cpio.c, and the list."""

PACK = (
    f"gcc -O1 -o /build/gen_init_cpio {PACKER} && /build/gen_init_cpio -t {EPOCH} {LIST} >/out/{CPIO}"
    # One thread: the number of threads must not decide a byte.
    f" && zstd -19 --threads=1 --quiet --check /out/{CPIO} -o /out/{COMPRESSED}"
)
"""Shell: makes both archives in /out."""

# gen_init_cpio's list has words between blanks and no quoting; the kernel takes bytes, people take ASCII.
_WORD = r"[!-.0-~]+"
_PATH = rf"{_WORD}(/{_WORD})*"
_FILES, _ARTIFACTS = "/inputs/files/", "/inputs/artifacts/"
_SHOWN_PATH = 80  # characters of an entry's path in a message
_SHOWN = 5  # members in the message about a broken budget


class Kind(StrEnum):
    """What a member is."""

    DIR = "dir"
    FILE = "file"
    LINK = "link"
    CHAR = "char"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One member. `inside` is where the sandbox has a file's content; `target` a link's, `major` a device's."""

    path: str
    kind: Kind
    mode: int
    inside: str = ""
    target: str = ""
    major: int = 0
    minor: int = 0


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The whole archive, sorted by path. `budget` is in bytes, of the compressed archive."""

    budget: int
    entries: tuple[Entry, ...]

    def files(self) -> dict[str, str]:
        """Where the sandbox must have the contents that lie in the checkout: path inside → path below initramfs/."""
        return self._contents(_FILES)

    def artifacts(self) -> dict[str, str]:
        """Where the sandbox must have the contents that are built: path inside → name of the artifact."""
        return self._contents(_ARTIFACTS)

    def _contents(self, prefix: str) -> dict[str, str]:
        inside = {e.inside for e in self.entries if e.inside.startswith(prefix)}
        return {path: path.removeprefix(prefix) for path in sorted(inside)}


def step(root: Path, *, built: Output, packer: Output) -> Step:
    """The step. `built` is the agent, `packer` the source of gen_init_cpio. UserError for a bad manifest."""
    manifest = load(root / FILE, artifacts=[agent.NAME])
    return Step(
        name="initramfs",
        title="initramfs",
        argv=("/bin/sh", "-euc", PACK),
        tools="build",
        inputs={
            PACKER: packer,
            LIST: Literal(data=listing(manifest).encode()),
            **dict.fromkeys(manifest.artifacts(), built),
            **{inside: CheckoutFile(path=f"initramfs/{name}") for inside, name in manifest.files().items()},
        },
        outputs=(CPIO, COMPRESSED),
        checks=(partial(check_budget, manifest.budget),),
    )


def load(path: Path, *, shown_as: str = FILE, artifacts: Sequence[str]) -> Manifest:
    """Parse the manifest; `artifacts` are the names that entries may refer to. UserError names entry and key."""
    table = toml_reader.load(path, shown_as=shown_as)
    table.integer("schema", low=SCHEMA, high=SCHEMA)
    budget = table.integer("budget", low=1, high=1 << 30)
    entries: dict[str, Entry] = {}
    for item in table.tables("entry"):
        try:
            entry = _entry(item, folder=path.parent, artifacts=artifacts)
            if entry.path in entries:
                raise item.error("path", f"{entry.path!r} stands twice")
        except UserError as error:
            raise _naming(item, error) from None
        entries[entry.path] = entry
    table.close()
    for entry in entries.values():
        parent = str(PurePosixPath(entry.path).parent)
        if parent != "." and (parent not in entries or entries[parent].kind is not Kind.DIR):
            raise table.error("entry", f"{entry.path!r} has no parent {parent!r}", "list the folder: its mode matters")
    # The kernel unpacks in archive order: bytewise order puts every folder before what is in it.
    return Manifest(budget=budget, entries=tuple(sorted(entries.values(), key=lambda e: e.path.encode())))


def _naming(item: Table, error: UserError) -> UserError:
    """The error with the entry's path beside its number, which counts from 0 and is hard to find in a long file."""
    try:
        path = item.string("path")
    except UserError:
        return error
    return UserError(error.what, where=f"{error.where} ({path[:_SHOWN_PATH]})", hint=error.hint)


def _entry(item: Table, *, folder: Path, artifacts: Sequence[str]) -> Entry:
    path = item.string("path", pattern=_PATH, says="a relative path in printable ASCII without blanks")
    if any(part in {".", ".."} for part in path.split("/")):
        raise item.error("path", f"{path!r} must not hold . or ..")
    # PATH_MAX of the guest, NAME_MAX of its file systems; the kernel's unpacker skips what is longer.
    if len(path) > 1024 or any(len(part) > 255 for part in path.split("/")):
        raise item.error("path", "is longer than 1024 characters, or a part of it than 255")
    if path == "TRAILER!!!":
        raise item.error("path", "would end the archive: cpio calls its last member so")
    kind = item.choice("type", Kind)
    # The kernel gives every link the mode 0777.
    mode = 0o777
    if kind is not Kind.LINK:
        mode = int(item.string("mode", pattern=r"0[0-7]{3,4}", says="an octal mode such as 0755"), 8)
    content = target = ""
    major = minor = 0
    if kind is Kind.FILE:
        content = _content(item, folder=folder, artifacts=artifacts)
    elif kind is Kind.LINK:
        target = item.string("target", pattern=r"[!-~]{1,4095}", says="a target in printable ASCII without blanks")
    elif kind is Kind.CHAR:
        major = item.integer("major", low=0, high=4095)
        minor = item.integer("minor", low=0, high=1048575)
    item.close()
    return Entry(path=path, kind=kind, mode=mode, inside=content, target=target, major=major, minor=minor)


def _content(item: Table, *, folder: Path, artifacts: Sequence[str]) -> str:
    if item.has("artifact") == item.has("file"):
        raise item.error("artifact", "exactly one of artifact and file says where the content is")
    if item.has("file"):
        return _FILES + _source(item, folder=folder)
    name = item.string("artifact")
    if name not in artifacts:
        raise item.error("artifact", f"no artifact {name[:80]!r}", names.hint(name, artifacts))
    return _ARTIFACTS + name


def _source(item: Table, *, folder: Path) -> str:
    name = item.string("file", pattern=r"[A-Za-z0-9._+/-]{1,255}", says=f"a plain path below {folder.name}/")
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise item.error("file", f"{name!r} leaves {folder.name}/")
    if not path.is_file() or path.is_symlink():
        raise item.error("file", f"no file {folder.name}/{name}", "a link will not do")
    return name


def listing(manifest: Manifest) -> str:
    """The list for gen_init_cpio, whose usage text documents it. Owner and group are 0 throughout."""
    return "".join(f"{_line(entry)}\n" for entry in manifest.entries)


def _line(entry: Entry) -> str:
    match entry.kind:
        case Kind.DIR:
            return f"dir /{entry.path} {entry.mode:04o} 0 0"
        case Kind.FILE:
            return f"file /{entry.path} {entry.inside} {entry.mode:04o} 0 0"
        case Kind.LINK:
            return f"slink /{entry.path} {entry.target} {entry.mode:04o} 0 0"
        case Kind.CHAR:
            return f"nod /{entry.path} {entry.mode:04o} 0 0 c {entry.major} {entry.minor}"


def check_budget(budget: int, outputs: Mapping[str, Path]) -> None:
    """Raise BuildError naming the largest members when the compressed archive is over its budget, in bytes."""
    compressed = outputs[COMPRESSED].stat().st_size
    if compressed <= budget:
        return
    import libarchive  # noqa: PLC0415 (start-up: it looks for its library by starting programs)

    with libarchive.file_reader(str(outputs[CPIO]), format_name="cpio") as members:
        sizes = sorted(((member.size, member.pathname) for member in members), reverse=True)
    largest = ", ".join(f"{path} {ui.size(count)}" for count, path in sizes[:_SHOWN] if count)
    raise BuildError(
        f"{compressed} bytes compressed, {compressed - budget} over the budget of {budget}",
        where="initramfs",
        hint=f"largest members, uncompressed: {largest}",
    )
