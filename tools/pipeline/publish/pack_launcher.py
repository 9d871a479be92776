# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""tools/{sev,launcher} → out/sev-launch: one executable file, a zip archive of sources behind a few lines of sh.

A program of its own, `python3 pack_launcher.py ROOT TARGET [PYTHON…]` (ROOT has tools/), standard library only: it
runs in the sandbox. A TARGET named sev-runtime is that program, which has tools/runtime/ besides. Bytecode by each
PYTHON (this one, if none is named) travels beside the sources, and only a Python with the same magic number uses it:
any other from 3.11 on compiles the sources. The lines at the start:

    sh ── python3 -I -S ──▶ boot.py (a member of the archive) ──▶ main() of tools.launcher.cli.main

Python's own way with an archive (`python3 FILE`, by __main__.py) works as well; it starts the same again, isolated.
"""

import io
import marshal
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is packed: its name, the folders below tools/ that it imports from, the module whose main() it is."""

    name: str
    packages: tuple[str, ...]
    entry: str


LAUNCHER = Program(name="sev-launch", packages=("sev", "launcher"), entry="tools.launcher.cli.main")
RUNTIME = Program(name="sev-runtime", packages=("sev", "launcher", "runtime"), entry="tools.runtime.cli.main")
_BOOT = "tools/launcher/boot.py"
# Fixed in length, so that the members' offsets do not depend on the numbers in it.
_START = """\
import sys, _signal
if _signal.getsignal(2) is _signal.default_int_handler: _signal.signal(2, _signal.SIG_DFL)
import posix, marshal, _frozen_importlib_external
if sys.version_info < (3, 11): sys.exit("{name}: needs Python 3.11 or later, this is " + sys.version.split()[0])
for fd in 0, 1, 2:
    try: posix.fstat(fd)
    except OSError: posix.set_inheritable(posix.open("/dev/null", fd == 2), True)
stream = open(sys.argv[1], "rb")
stream.seek({at:8d})
modules, source, codes = marshal.loads(stream.read({size:8d}))
magic = _frozen_importlib_external.MAGIC_NUMBER
exec(marshal.loads(codes[magic]) if magic in codes else source)
start(sys.argv[1], stream, modules, magic, "{entry}")
"""
_HEAD = """\
#!/bin/sh
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# {name}. These lines start Python without its user's settings; what follows them is a zip archive of the
# program's source: `{name} --source FOLDER` unpacks it, and so does unzip.
exec python3 -I -S -c '
{start}' "$0" "$@"
"""
_MAIN = """\
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
import os
import sys

START = '''
{start}'''

python = sys.executable or "python3"
os.execvp(python, [python, "-I", "-S", "-c", START, *sys.argv])
"""
# Run by each PYTHON, which may have little of its standard library: texts on stdin, bytecode on stdout.
_COMPILE = """\
import marshal, sys
from importlib.util import MAGIC_NUMBER
files = marshal.loads(sys.stdin.buffer.read())
code = {name: compile(text, name, "exec", dont_inherit=True, optimize=0) for name, text in files.items()}
answer = MAGIC_NUMBER, sys.implementation.cache_tag, {name: marshal.dumps(code[name], VERSION) for name in files}
sys.stdout.buffer.write(marshal.dumps(answer, VERSION))
"""
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip header can hold
# Without references between objects: those depend on what else the packing process holds.
_MARSHAL_VERSION = 2


def sources(tools: Path, program: Program = LAUNCHER) -> list[Path]:
    """The program's modules below tools/, sorted: the order in the archive depends on it."""
    return sorted([tools / "__init__.py", *(p for name in program.packages for p in (tools / name).rglob("*.py"))])


def pack(tools: Path, pythons: Sequence[str] = (sys.executable,), program: Program = LAUNCHER) -> bytes:
    """The one file. Stored, not deflated: zlib's output differs between versions."""
    files = {path.relative_to(tools.parent).as_posix(): path.read_bytes() for path in sources(tools, program)}
    bytecode = dict(_compiled(python, files) for python in pythons)
    # The index names offsets, which depend on its own length: they do not move once it stands at the end.
    start = _START.format(at=0, size=0, name=program.name, entry=program.entry)
    for _ in range(2):
        data, at, size = _archive(files, bytecode, start, program.name)
        start = _START.format(at=at, size=size, name=program.name, entry=program.entry)
    return data


def _archive(
    files: Mapping[str, bytes], bytecode: Mapping[bytes, tuple[str, Mapping[str, bytes]]], start: str, name: str
) -> tuple[bytes, int, int]:
    """The file with these lines at the start, and where its index lies in it: offset and length in bytes."""
    buffer = io.BytesIO()
    buffer.write(_HEAD.format(start=start, name=name).encode())
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _MAIN.format(start=start).encode())
        places: dict[str, dict[bytes, tuple[int, int]]] = {file: {} for file in files}
        modules = {_module(file): (file, *_add(archive, file, text), places[file]) for file, text in files.items()}
        for magic, (tag, code) in bytecode.items():
            begin = _add(archive, f"bytecode/{tag}.bin", b"".join(code[file] for file in files))[0]
            for file in files:
                places[file][magic] = begin, len(code[file])
                begin += len(code[file])
        entry = (modules, files[_BOOT], {magic: code[_BOOT] for magic, (_, code) in bytecode.items()})
        place = _add(archive, "bytecode/index.bin", marshal.dumps(entry, _MARSHAL_VERSION))
    return buffer.getvalue(), *place


def _compiled(python: str, files: dict[str, bytes]) -> tuple[bytes, tuple[str, dict[str, bytes]]]:
    """That Python's magic number, its name for files of bytecode, and the bytecode by the files' names."""
    program = _COMPILE.replace("VERSION", str(_MARSHAL_VERSION))
    words = [python, "-I", "-S", "-c", program]
    done = subprocess.run(words, input=marshal.dumps(files, _MARSHAL_VERSION), stdout=subprocess.PIPE, check=True)
    magic, tag, code = marshal.loads(done.stdout)  # noqa: S302  from a program of ours
    return magic, (tag, code)


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> tuple[int, int]:
    """Store a member; returns offset and length of its bytes in the file."""
    info = zipfile.ZipInfo(name, date_time=_DATE)
    info.create_system = 3  # Unix, whatever the host: decides how the mode is read
    info.external_attr = 0o100644 << 16
    archive.writestr(info, data)
    # A local header has 30 bytes and the name (APPNOTE 4.3.7); there is no extra field.
    return info.header_offset + 30 + len(name.encode()), len(data)


def main(words: list[str]) -> int:
    """Pack tools/ of the folder `words[0]` into the file `words[1]`, with bytecode by the Pythons after them."""
    root, target = (Path(word) for word in words[:2])
    program = RUNTIME if target.name == RUNTIME.name else LAUNCHER
    target.write_bytes(pack(root / "tools", words[2:] or [sys.executable], program))
    target.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
