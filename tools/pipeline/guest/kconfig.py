# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Kernel configuration: parse fragments, and audit what Kconfig made of them.

    fragments ─┬─ make allnoconfig (kernel.py) ──▶ .config ─┐
               └─ parse_fragment ──▶ requests ──────────────┼── audit ──▶ findings
    source tree ── read_symbols ──▶ symbols ────────────────┘

Kconfig drops requests without a word: a misspelt or renamed symbol, unmet dependencies, a choice that went
the other way. The audit turns each into an error that names fragment and line, before anything is compiled.
"""

import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tools.pipeline.base import names
from tools.pipeline.base.errors import UserError

_SET = re.compile(r'CONFIG_([A-Za-z0-9_]+)=(y|"(?:[^"\\]|\\.)*"|-?[0-9]+|0x[0-9a-fA-F]+)')
_UNSET = re.compile(r"# CONFIG_([A-Za-z0-9_]+) is not set")
_EXPECT = re.compile(r"# expect: (.*)")
# Comments that were probably meant as one of the above.
_ALMOST = re.compile(r"\s*#\s*(CONFIG_\w+\s*=|CONFIG_\w+ is\b|expect\b)|.*\bis not set\s*$")
_RESULT = re.compile(r'CONFIG_([A-Za-z0-9_]+)=(y|m|"(?:[^"\\]|\\.)*"|-?[0-9]+|0x[0-9a-fA-F]+)')


@dataclass(frozen=True, kw_only=True)
class Request:
    """One line of a fragment. `value` is as in `.config`, "n" for `is not set`; `where` is "fragment:line".

    `expected` marks `# expect:` lines: a statement about the result that is audited but never handed to
    Kconfig, for symbols that only others select.
    """

    symbol: str
    value: str
    where: str
    expected: bool = False


@dataclass(kw_only=True)
class Symbol:
    """What the Kconfig files of a source tree say about one symbol, over all its definitions."""

    prompts: list[str] = field(default_factory=list)
    depends: list[str] = field(default_factory=list)
    selected_by: set[str] = field(default_factory=set)
    defined: bool = False


class Problem(StrEnum):
    """Why a request does not hold."""

    UNKNOWN = "unknown"
    PROMPTLESS = "promptless"
    DROPPED = "dropped"
    CHANGED = "changed"
    EXPECTATION = "expectation"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A request that Kconfig did not honour, with a hint taken from the source tree."""

    problem: Problem
    request: Request
    detail: str

    def __str__(self) -> str:
        return f"{self.request.where}: CONFIG_{self.request.symbol}: {self.detail}"


def parse_fragment(text: str, *, name: str) -> tuple[Request, ...]:
    """Parse one fragment; `name` is what errors call it.

    A line is empty, a comment, `CONFIG_X=y|"string"|number`, `# CONFIG_X is not set`, or, after `# expect: `,
    `CONFIG_X=VALUE` or `CONFIG_X is not set`. Anything else is a UserError, and so is a comment
    that looks like a misspelt setting.
    """
    requests = []
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{name}:{number}"
        expect = _EXPECT.fullmatch(line)
        setting = re.sub(r"^(CONFIG_\w+ is not set)$", r"# \1", expect[1]) if expect else line
        if match := _SET.fullmatch(setting):
            requests.append(Request(symbol=match[1], value=match[2], where=where, expected=bool(expect)))
        elif match := _UNSET.fullmatch(setting):
            requests.append(Request(symbol=match[1], value="n", where=where, expected=bool(expect)))
        elif expect or _ALMOST.match(line) or (line and not line.startswith("#")):
            raise UserError(f"cannot read {line!r}", where=where, hint=_syntax_hint(setting))
    return tuple(requests)


def _syntax_hint(setting: str) -> str:
    if setting.endswith("=m"):
        return "this kernel has no modules: use =y"
    if setting.endswith("=n"):
        return f"write '# {setting.removesuffix('=n')} is not set'"
    return "expected CONFIG_X=VALUE or '# CONFIG_X is not set', with nothing before or after it"


def load_fragments(paths: Iterable[Path], *, label: Callable[[Path], str] = str) -> tuple[Request, ...]:
    """Parse fragments and refuse a symbol that two lines set, even to the same value: each has one home."""
    requests: list[Request] = []
    for path in paths:
        try:
            text = path.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"fragment cannot be read: {error}", where=label(path)) from None
        requests += parse_fragment(text, name=label(path))
    return check_unique(requests)


def check_unique(requests: Iterable[Request]) -> tuple[Request, ...]:
    """Give the requests back, or a UserError naming both places of the first symbol that appears twice."""
    seen: dict[str, Request] = {}
    for request in requests:
        first = seen.setdefault(request.symbol, request)
        if first is not request:
            raise UserError(
                f"CONFIG_{request.symbol} is already set in {first.where}",
                where=request.where,
                hint="every symbol has one line in one fragment",
            )
    return tuple(seen.values())


def parse_config(text: str, *, where: str) -> dict[str, str]:
    """Parse a `.config` that Kconfig wrote: symbol to value, "n" for `is not set`. Other lines: UserError."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if match := _RESULT.fullmatch(line):
            values[match[1]] = match[2]
        elif match := _UNSET.fullmatch(line):
            values[match[1]] = "n"
        elif line and not line.startswith("#"):
            raise UserError(f"not a line that Kconfig writes: {line!r}", where=f"{where}:{number}")
    return values


# ---- Kconfig files (Documentation/kbuild/kconfig-language.rst): names, prompts, dependencies, selects.

_ENTRY = re.compile(r"(config|menuconfig|choice|comment|menu)\b\s*(\S.*)?")
_SOURCE = re.compile(r'source\s+"([^"]+)"')
_PROMPT = re.compile(r'(?:bool|tristate|string|int|hex|prompt)\s+(".*|\'.*)')
_DEPENDS = re.compile(r"depends\s+on\s+(.*)")
_SELECT = re.compile(r"(?:select|imply)\s+([A-Za-z0-9_]+)")
_IF = re.compile(r"if\s+(.*)")


def archive_reader(archive: Path) -> Callable[[str], str]:
    """Give a function that reads a Kconfig file by its path from a tar of the tree's Kconfig files."""
    import tarfile  # noqa: PLC0415 (start-up: only the audit needs it)

    with tarfile.open(archive, "r:") as members:
        # Beside the Kconfig files lies what else configuring takes.
        wanted = (m for m in members if m.name.rpartition("/")[2].startswith("Kconfig"))
        texts = {m.name.removeprefix("./"): file.read() for m in wanted if (file := members.extractfile(m))}

    def read(name: str) -> str:
        if name not in texts:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return texts[name].decode("utf-8")

    return read


def read_symbols(read: Callable[[str], str], *, arch: str = "x86") -> dict[str, Symbol]:
    """Follow `source` from the top Kconfig as Kconfig would for `arch`, and give every symbol that occurs on the way.

    `read` gives a file's text by its path in the source tree; its OSError means that the tree is incomplete.
    """
    symbols: dict[str, Symbol] = {}
    _KconfigWalk(read=read, arch=arch, symbols=symbols).read_file("Kconfig")
    return symbols


@dataclass(kw_only=True)
class _KconfigWalk:
    """The walk over the Kconfig files of one tree. Blocks (`if`, `menu`, `choice`) hold their conditions."""

    read: Callable[[str], str]
    arch: str
    symbols: dict[str, Symbol]
    blocks: list[list[str]] = field(default_factory=list)

    def read_file(self, name: str) -> None:
        """Read one file and what it sources, inside the blocks that are open now."""
        try:
            text = self.read(name)
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", where=f"kernel source: {name}") from None
        depth = len(self.blocks)
        entry = ""  # the config entry that attribute lines belong to
        header = False  # whether a `depends on` here belongs to the innermost block
        for line in _statements(text):
            if match := _SOURCE.match(line):
                self.read_file(match[1].replace("$(SRCARCH)", self.arch).replace("$(HEADER_ARCH)", self.arch))
                entry, header = "", False
            elif match := _IF.match(line):
                self.blocks.append([match[1]])
                entry, header = "", False
            elif line.split()[0] in ("endif", "endmenu", "endchoice"):
                self.blocks.pop()
                entry, header = "", False
            elif match := _ENTRY.match(line):
                entry, header = self.open_entry(match[1], match[2])
            elif entry:
                self.read_attribute(entry, line)
            elif header and (match := _DEPENDS.match(line)):
                self.blocks[-1].append(match[1])
        if len(self.blocks) != depth:
            raise UserError("unbalanced if, menu or choice", where=f"kernel source: {name}")

    def open_entry(self, keyword: str, name: str) -> tuple[str, bool]:
        """Begin an entry: give the symbol whose attributes follow, or "", and whether a block was opened."""
        if keyword in ("choice", "menu"):
            self.blocks.append([])
            return "", True
        if keyword == "comment":
            return "", False
        symbol = self.symbols.setdefault(name, Symbol())
        symbol.defined = True
        symbol.depends += [condition for block in self.blocks for condition in block]
        return name, False

    def read_attribute(self, name: str, line: str) -> None:
        """Take one attribute line of the entry for symbol `name`."""
        if match := _PROMPT.match(line):
            self.symbols[name].prompts.append(match[1])
        elif match := _DEPENDS.match(line):
            self.symbols[name].depends.append(match[1])
        elif match := _SELECT.match(line):
            self.symbols.setdefault(match[1], Symbol()).selected_by.add(name)


def _statements(text: str) -> Iterator[str]:
    """Yield the logical lines of a Kconfig file, stripped, without comments and help texts."""
    lines = text.replace("\\\n", " ").expandtabs(8).split("\n")
    help_indent: int | None = None
    in_help = False
    for line in lines:
        stripped = line.strip()
        if not stripped:
            continue
        indent = len(line) - len(line.lstrip())
        if in_help:
            if help_indent is None:
                help_indent = indent
            # Help ends at the first line that is indented less than its first line.
            if indent >= help_indent > 0:
                continue
            in_help = False
        if stripped in ("help", "---help---"):
            in_help, help_indent = True, None
        elif not stripped.startswith("#"):
            yield stripped


# ---- Audit.


def audit(
    requests: Iterable[Request], *, symbols: Mapping[str, Symbol], result: Mapping[str, str]
) -> tuple[Finding, ...]:
    """Compare every request with the resulting configuration; no finding means that all were honoured.

    A symbol that is absent from `.config` counts as "n": Kconfig leaves out what is not visible.
    """
    findings = (_check(request, symbols=symbols, result=result) for request in requests)
    return tuple(finding for finding in findings if finding)


def _check(request: Request, *, symbols: Mapping[str, Symbol], result: Mapping[str, str]) -> Finding | None:
    symbol = symbols.get(request.symbol)
    actual = result.get(request.symbol, "n")
    if symbol is None or not symbol.defined:
        question = names.meant(request.symbol, (name for name, known in symbols.items() if known.defined))
        problem, detail = (
            Problem.UNKNOWN,
            f"no such symbol in the Kconfig files of this source; {question}".rstrip("; "),
        )
    elif not symbol.prompts and not request.expected:
        problem, detail = Problem.PROMPTLESS, _promptless_detail(symbol, request.symbol)
    elif actual == request.value:
        return None
    elif request.expected:
        problem, detail = Problem.EXPECTATION, f"expected {request.value}, is {actual}{_why(symbol, result)}"
    elif actual == "n":
        problem, detail = Problem.DROPPED, f"asked for {request.value}, dropped{_why(symbol, result)}"
    else:
        chosen = sorted(name for name in symbol.selected_by if result.get(name) == "y")
        by = f"; selected by {', '.join(chosen)}" if chosen else ""
        problem, detail = Problem.CHANGED, f"asked for {request.value}, is {actual}{by}"
    return Finding(problem=problem, request=request, detail=detail)


def _promptless_detail(symbol: Symbol, name: str) -> str:
    by = ", ".join(sorted(symbol.selected_by)[:4]) or "nobody: its own default decides"
    return f"has no prompt, a request has no effect (selected by {by}): write '# expect: CONFIG_{name}=…'"


def _why(symbol: Symbol, result: Mapping[str, str]) -> str:
    """Give the `depends on` conditions and prompt conditions, with the values of the symbols in them."""
    conditions = list(dict.fromkeys(symbol.depends))
    conditions += [f"prompt {p.rpartition(' if ')[2]}" for p in symbol.prompts if '" if ' in p]
    if not conditions:
        return ""
    names = dict.fromkeys(n for c in conditions for n in re.findall(r"\b[A-Z][A-Z0-9_]+\b", c))
    values = ", ".join(f"{name}={result.get(name, 'n')}" for name in names)
    return f"; depends on {' && '.join(f'({c})' for c in conditions)} where {values}"


def raise_findings(findings: Iterable[Finding]) -> None:
    """Raise one UserError with a line for every finding, if there is any."""
    if lines := [str(finding) for finding in findings]:
        count = "an option is" if len(lines) == 1 else f"{len(lines)} options are"
        raise UserError(f"{count} not in the kernel's configuration as the fragments ask", details=lines)
