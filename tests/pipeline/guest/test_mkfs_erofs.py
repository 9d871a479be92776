# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""mkfs.erofs: what it is made of, and the program that a build has put into out/."""

import io
import re
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

from tools.pipeline.engine.step import Blob
from tools.pipeline.guest import mkfs_erofs
from tools.pipeline.tasks.project import Project

_LEFT_OUT = {
    # libraries: compression, SELinux, UUIDs, and what talks to a network or to the kernel's block devices
    *("HAVE_LIBDEFLATE", "HAVE_LIBLZMA", "HAVE_LIBZSTD", "HAVE_QPL", "HAVE_ZLIB", "LZ4_ENABLED", "LZ4HC_ENABLED"),
    *("HAVE_LIBSELINUX", "HAVE_LIBUUID", "HAVE_XXHASH", "HAVE_XXHASH_H"),
    *("HAVE_CURL_CURL_H", "HAVE_JSON_C_JSON_H", "HAVE_LIBCURL", "HAVE_LIBXML_PARSER_H", "HAVE_OPENSSL"),
    *("HAVE_OPENSSL_EVP_H", "OCIEROFS_ENABLED", "S3EROFS_ENABLED", "HAVE_LIBURING"),
    "HAVE_STRUCT_FANOTIFY_EVENT_INFO_RANGE",
    # threads, which only compression uses
    *("EROFS_MT_ENABLED", "HAVE_PTHREAD_H"),
    # of other systems than ours
    *("HAVE_LINUX_AUFS_TYPE_H", "HAVE_STRUCT_STAT_ST_ATIMENSEC"),
}
_QUESTION = re.compile(r"\b(?:HAVE_(?!CONFIG_H\b)[A-Z0-9_]+|[A-Z0-9_]+_ENABLED|EROFS_MAX_BLOCK_SIZE)\b")


def test_every_question_of_the_sources_has_an_answer(project: Project, repository: Path) -> None:
    """There is no configure: what the pinned sources would ask it stands in config.h, or is left out on purpose."""
    archive = project.plan.mkfs_erofs.inputs["/inputs/source"]
    assert isinstance(archive, Blob)
    data = project.cas.read(archive.sha256, archive.size)
    assert data is not None, "run ./doit fetch"
    asked: set[str] = set()
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        for member in members:
            name = member.name.partition("/")[2]
            if re.fullmatch(r"(include|lib)/.*\.[ch]|mkfs/main\.c", name) and "/backends/" not in name:
                file = members.extractfile(member)
                assert file is not None
                asked.update(_QUESTION.findall(file.read().decode()))
    config = (repository / "recipes/erofs/config.h").read_text()
    answered = set(re.findall(r"^#define (\w+) ", config, flags=re.MULTILINE))
    assert asked == answered | _LEFT_OUT
    assert not answered & _LEFT_OUT


def test_it_runs_everywhere_and_is_of_the_pinned_version(project: Project, artifacts: Path) -> None:
    """One static file that may be executed, without compression libraries."""
    program = artifacts / mkfs_erofs.NAME
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    data = program.read_bytes()
    assert data.startswith(b"\x7fELF")
    # e_phoff, e_phentsize, e_phnum of the ELF header; p_type of each program header, of which none is PT_INTERP.
    offset, (size, count) = *struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
    types = [struct.unpack_from("<I", data, offset + size * number)[0] for number in range(count)]
    assert 1 in types, "PT_LOAD is seen"
    assert 3 not in types
    done = subprocess.run([program, "-V"], capture_output=True, text=True, check=True, env={})
    version = project.plan.mkfs_erofs.title.split()[1].partition("-")[0]
    assert done.stdout.splitlines() == [f"mkfs.erofs (erofs-utils) {version}", "available compressors: deflate"]
