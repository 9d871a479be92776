# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""tools/launcher/ → one executable file: a Python zip application whose source can be read with unzip."""

import io
import zipfile
from pathlib import Path

_PACKAGES = ("sev", "launcher")
"""Below tools/; the launcher imports nothing else of ours."""
_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = """\
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
import sys

if sys.version_info < (3, 11):
    sys.exit("sev-launch: needs Python 3.11 or later, this is " + sys.version.split()[0])

from tools.launcher.cli.main import main

sys.exit(main())
"""
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip header can hold


def sources(tools: Path) -> list[Path]:
    """The launcher's modules below tools/, sorted: the order in the archive depends on it."""
    return sorted([tools / "__init__.py", *(p for name in _PACKAGES for p in (tools / name).rglob("*.py"))])


def pack(tools: Path) -> bytes:
    """The zip application. Stored, not deflated: zlib's output differs between versions."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _MAIN.encode())
        for path in sources(tools):
            _add(archive, path.relative_to(tools.parent).as_posix(), path.read_bytes())
    return _SHEBANG + buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, date_time=_DATE)
    info.create_system = 3  # Unix, whatever the host: decides how the mode is read
    info.external_attr = 0o100644 << 16
    archive.writestr(info, data)


if __name__ == "__main__":
    import sys

    p = Path(sys.argv[2])
    p.write_bytes(pack(Path(sys.argv[1]) / "tools"))
    p.chmod(0o755)
