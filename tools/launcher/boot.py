# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Imports of the one file out/sev-launch, or out/sev-runtime; used only there.

tools/pipeline/publish/pack_launcher.py has the rest.

Python's own import from zip archives would read the whole directory first, which alone takes half the time that
--help has.
"""

import marshal
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any, BinaryIO

    Modules = dict[str, tuple[str, int, int, dict[bytes, tuple[int, int]]]]

_ModuleSpec: "Any" = type(sys.__spec__)


class Archive:
    """Finds our modules in the file and loads them: from bytecode where some fits this Python, else from source.

    `modules` has for each its file's name, offset and length of its source in `stream`, and those of its bytecode by
    the magic number of the Pythons that it fits; `magic` is this Python's.
    """

    def __init__(self, path: str, stream: "BinaryIO", modules: "Modules", magic: bytes) -> None:
        self._path = path
        self._stream = stream
        self._modules = modules
        self._magic = magic

    def find_spec(self, name: str, *_: object) -> "Any":
        """The specification of a module of ours; None for any other."""
        if name not in self._modules:
            return None
        file = self._modules[name][0]
        spec = _ModuleSpec(name, self, origin=f"{self._path}/{file}", is_package=file.endswith("/__init__.py"))
        spec.has_location = True
        return spec

    def create_module(self, spec: object) -> None:
        """The ordinary kind."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run the module's code in it."""
        exec(self.get_code(module.__name__), module.__dict__)  # noqa: S102  this is an import

    def get_code(self, name: str) -> "CodeType":
        """The module's code."""
        file, _, _, bytecode = self._modules[name]
        if self._magic not in bytecode:
            code: CodeType = compile(self.get_source(name), file, "exec", dont_inherit=True)
        else:
            code = marshal.loads(self._read(*bytecode[self._magic]))  # noqa: S302  the sources stand beside it
        return code

    def get_source(self, name: str) -> str:
        """The module's text, which tracebacks quote."""
        _, at, size, _ = self._modules[name]
        return self._read(at, size).decode()

    def _read(self, at: int, size: int) -> bytes:
        self._stream.seek(at)
        return self._stream.read(size)


def start(path: str, stream: "BinaryIO", modules: "Modules", magic: bytes, entry: str) -> None:
    """Run the program in the file, whose main() is in the module `entry`.

    `sys.argv` is as after `python3 -c`, with the file as its first word.
    """
    sys.argv[:2] = [path]
    sys.meta_path.insert(0, Archive(path, stream, modules, magic))
    status = __import__(entry, fromlist=("",)).main()
    for output in sys.stdout, sys.stderr:
        if output is not None:
            output.flush()
    # Past Python's own clean-up, which takes a fifth of a start: the kernel gives back what there is.
    posix._exit(status)  # noqa: SLF001  os._exit is this, and that module is slow to import
