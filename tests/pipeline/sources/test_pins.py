# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Locks and what they answer: good ones are read exactly, bad ones are refused by file and key."""

from dataclasses import replace
from pathlib import Path

import pytest

from tools.pipeline.base.errors import UserError
from tools.pipeline.sources import pins, wanted
from tools.pipeline.sources.pins import Archive, PoolFile, Source, ToolchainLock, Wheel
from tools.pipeline.sources.wanted import Kind

ROOT = Path(__file__).resolve().parents[3]
A, B, C = "a" * 64, "b" * 64, "c" * 64

SOURCES = f"""\
schema = 1
[[source]]
name = "linux"
version = "6.12.107-1"
licence = "GPL-2.0-only WITH Linux-syscall-note"
kind = "debian-source"
package = "linux"
file = "linux_6.12.107.orig.tar.xz"
archive = "debian"
path = "pool/main/l/linux/linux_6.12.107.orig.tar.xz"
size = 151398592
sha256 = "{A}"
[[source]]
name = "tool"
version = "1.0"
licence = "(MIT OR Apache-2.0) AND BSD-3-Clause"
kind = "https"
urls = ["https://example.org/tool-1.0.tar.gz"]
size = 10
sha256 = "{B}"
[[source]]
name = "measure"
version = "0.1"
licence = "Apache-2.0"
kind = "pypi"
package = "Measure_It"
file = "measure_it-0.1-py3-none-any.whl"
size = 11
sha256 = "{C}"
"""

TOOLCHAIN = f"""\
schema = 1
suite = "trixie"
[trees.build]
packages = ["gcc", "make"]
[trees.boot]
packages = ["make"]
[[package]]
name = "make"
version = "4.4.1-2"
architecture = "amd64"
trees = ["boot", "build"]
archive = "debian"
path = "pool/main/m/make-dfsg/make_4.4.1-2_amd64.deb"
size = 463104
sha256 = "{A}"
[[package]]
name = "gcc"
version = "4:14.2.0-1"
architecture = "amd64"
trees = ["build"]
archive = "debian-security"
path = "pool/updates/main/g/gcc-defaults/gcc_14.2.0-1_amd64.deb"
size = 5136
sha256 = "{B}"
"""

WANTED_SOURCES = """\
schema = 1
[source.linux]
kind = "debian-source"
package = "linux"
version = "6.12.107-1"
file = "linux_6.12.107.orig.tar.xz"
licence = "GPL-2.0-only WITH Linux-syscall-note"
"""

WANTED_TOOLCHAIN = """\
schema = 1
suite = "trixie"
architecture = "amd64"
[layout]
merged = ["bin", "lib"]
folders = ["build", "var/tmp"]
skip = ["usr/share/doc"]
[trees.build]
packages = ["make", "gcc"]
[trees.build.links]
"usr/bin/cc" = "gcc"
"""

BOOKWORM = '[older]\nsuite = "bookworm"\npackages = ["old"]\n'

READERS = {
    "sources.lock": (pins.read_sources_lock, SOURCES),
    "toolchain.lock": (pins.read_toolchain_lock, TOOLCHAIN),
    "sources.toml": (wanted.read_sources, WANTED_SOURCES),
    "toolchain.toml": (wanted.read_toolchain, WANTED_TOOLCHAIN),
}

# file, what is replaced, by what, and what the error must say: file and key, then why.
BAD = [
    ("sources.lock", "schema = 1", "schema = 2", "sources.lock: schema: 2 is not in"),
    ("sources.lock", "schema = 1", "", "sources.lock: schema: missing"),
    ("sources.lock", "schema = 1", "schema = true", "sources.lock: schema: must be an integer, not"),
    ("sources.lock", "schema = 1", "schema = 1\nsauce = 1", "sources.lock: sauce: unknown key"),
    ("sources.lock", "[[source]]", "[source]", "is not TOML"),
    ("sources.lock", A, A[:-1], "source[0].sha256"),
    ("sources.lock", A, A.upper(), "source[0].sha256"),
    ("sources.lock", f'"{A}"', "7", "source[0].sha256: must be"),
    ("sources.lock", "151398592", "0", "source[0].size: 0 is not in"),
    ("sources.lock", "151398592", "-1", "source[0].size"),
    ("sources.lock", "151398592", "1e6", "source[0].size: must be an integer"),
    ("sources.lock", "151398592", '"151398592"', "source[0].size: must be an integer, not a string"),
    ("sources.lock", "151398592", "9999999999999", "source[0].size"),
    ("sources.lock", "pool/main/l/", "pool/main/../l/", "source[0].path"),
    ("sources.lock", "pool/main/l/", "/pool/main/l/", "source[0].path"),
    ("sources.lock", "pool/main/l/", "etc/main/l/", "source[0].path"),
    ("sources.lock", "pool/main/l/", "pool//l/", "source[0].path"),
    ("sources.lock", "pool/main/l/", "pool/%2e%2e/", "source[0].path"),
    ("sources.lock", 'orig.tar.xz"\narchive', 'orig.tar.gz"\narchive', "source[0].path: does not end in"),
    ("sources.lock", 'archive = "debian"', 'archive = "ubuntu"', "source[0].archive: 'ubuntu' is not one of"),
    ("sources.lock", "https://example", "http://example", "source[1].urls[0]: 'http://example"),
    ("sources.lock", "https://example.org/", "file:///", "source[1].urls[0]"),
    ("sources.lock", "https://example.org/", "https://user@example.org/", "source[1].urls[0]"),
    ("sources.lock", 'urls = ["https://example.org/tool-1.0.tar.gz"]', "urls = []", "source[1].urls: must"),
    ("sources.lock", 'kind = "https"', 'kind = "git"', "source[1].kind: 'git' is not one of"),
    ("sources.lock", 'kind = "https"', 'kind = "file"', "source[1].path: missing"),
    ("sources.lock", 'name = "tool"', 'name = "linux"', "sources.lock: linux: pinned twice"),
    ("sources.lock", B, A, "sources.lock: tool: same sha256 as linux but another size"),
    ("sources.lock", 'name = "tool"', 'name = "Tool!"', "source[1].name"),
    ("sources.lock", "py3-none-any", "cp311-cp311-linux_x86_64", "source[2].file: 'measure_it-0.1-cp311"),
    ("sources.lock", "-py3-none-any.whl", ".tar.gz", "source[2].file: 'measure_it-0.1.tar.gz' is not a wheel"),
    ("sources.lock", "Measure_It", "--index-url=x", "source[2].package"),
    ("sources.lock", "Measure_It", "-r", "source[2].package"),
    ("sources.lock", 'version = "1.0"', 'version = "v1 0"', "source[1].version"),
    ("sources.lock", 'version = "1.0"', 'version = "1.0"\nhost = "h"', "source[1].host: unknown key"),
    ("toolchain.lock", 'suite = "trixie"', 'suite = "../sid"', "toolchain.lock: suite"),
    ("toolchain.lock", "[trees.build]", f"{BOOKWORM}[trees.build]".replace('"old"', ""), "older.packages: must not be"),
    ("toolchain.lock", 'trees = ["build"]', 'trees = ["bild"]', "package[1].trees[0]: 'bild' is not a tree"),
    ("toolchain.lock", 'trees = ["build"]', 'trees = ["build", "build"]', "package[1].trees[1]"),
    ("toolchain.lock", 'trees = ["build"]', "trees = []", "package[1].trees: must not be empty"),
    ("toolchain.lock", '["boot", "build"]', '["build"]', "toolchain.lock: trees.boot: has no package"),
    ("toolchain.lock", "gcc_14.2.0-1_amd64.deb", "g++_14.2.0-1_amd64.deb", "package[1].path"),
    ("toolchain.lock", "gcc_14.2.0-1_amd64.deb", "gcc_14.2.0-1_amd64.rpm", "package[1].path"),
    ("toolchain.lock", "gcc_14.2.0-1_amd64.deb", "gcc_14.2.0-1_arm64.deb", "package[1].path"),
    ("toolchain.lock", 'architecture = "amd64"', 'architecture = "i386"', "package[0].architecture"),
    ("toolchain.lock", 'name = "gcc"', 'name = "make"', "package[1].path"),
    ("toolchain.lock", '"gcc", "make"', '"gcc", "gcc"', "trees.build.packages: names a package twice"),
    ("toolchain.lock", '"gcc", "make"', '"gcc", "-oDebug=1"', "trees.build.packages[1]"),
    ("toolchain.lock", '"gcc", "make"', "1", "trees.build.packages[0]: must be a non-empty string"),
    ("sources.toml", "[source.linux]", "[source.Linux]", "sources.toml: source.Linux"),
    ("sources.toml", 'package = "linux"\n', "", "source.linux.package: missing"),
    ("sources.toml", 'file = "linux', 'file = "../linux', "source.linux.file"),
    ("sources.toml", 'kind = "debian-source"', 'kind = "https"', "source.linux.urls: missing"),
    ("sources.toml", "schema = 1", "schema = 1\nsource = 3", "is not TOML"),
    ("sources.toml", "licence", f'sha256 = "{A}"\nlicence', "source.linux.size: missing"),
    ("toolchain.toml", "[layout]", f"{BOOKWORM}[layout]".replace("bookworm", "../sid"), "toml: older.suite"),
    ("toolchain.toml", "[layout]", f"{BOOKWORM}[layout]".replace("bookworm", "trixie"), "older.suite: 'trixie' is"),
    ("toolchain.toml", "[layout]", f"{BOOKWORM}[layout]".replace('"old"', '"*"'), "toml: older.packages[0]"),
    ("toolchain.toml", "[layout]", '[older]\nsuite = "bookworm"\n[layout]', "toml: older.packages: missing"),
    ("toolchain.toml", '"build", "var/tmp"', '"../up"', "layout.folders[0]"),
    ("toolchain.toml", '"build", "var/tmp"', '"/etc"', "layout.folders[0]"),
    ("toolchain.toml", '"bin", "lib"', '"bin", "bin"', "layout.merged: names something twice"),
    ("toolchain.toml", '"usr/bin/cc"', '"../cc"', "trees.build.links.../cc"),
    ("toolchain.toml", '"usr/bin/cc" = "gcc"', '"usr/bin/cc" = 1', "trees.build.links.usr/bin/cc"),
    ("toolchain.toml", "[trees.build]", "[trees.Build]", "toolchain.toml: trees.Build"),
    ("toolchain.toml", '"make", "gcc"', '"make", "gcc=1"', "trees.build.packages[1]"),
]  # fmt: skip


def read(name: str, text: str, folder: Path) -> object:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return READERS[name][0](path)


@pytest.mark.parametrize(("name", "old", "new", "says"), BAD)
def test_bad_file_is_refused_by_file_and_key(name: str, old: str, new: str, says: str, tmp_path: Path) -> None:
    good = READERS[name][1]
    read(name, good, tmp_path)
    assert old in good
    with pytest.raises(UserError) as caught:
        read(name, good.replace(old, new, 1), tmp_path)
    message = str(caught.value)
    assert says in message
    assert message.startswith(f"recipes/{name}: ")
    assert "\n" not in message


def test_good_locks_are_read_exactly(tmp_path: Path) -> None:
    sources = pins.read_sources_lock(_write(tmp_path, "sources.lock", SOURCES))
    assert [s.pin.name for s in sources] == ["linux", "measure", "tool"]
    linux, measure, _ = sources
    assert measure.pin.origin == Wheel(package="Measure_It", version="0.1", file="measure_it-0.1-py3-none-any.whl")
    assert linux.wanted.kind is Kind.DEBIAN_SOURCE
    assert linux.pin.origin == PoolFile(archive=Archive.DEBIAN, path="pool/main/l/linux/linux_6.12.107.orig.tar.xz")
    assert (linux.pin.size, linux.pin.sha256, linux.pin.version) == (151398592, A, "6.12.107-1")
    locked = pins.read_toolchain_lock(_write(tmp_path, "toolchain.lock", TOOLCHAIN))
    assert [p.pin.name for p in locked.of_tree("build")] == ["gcc", "make"]
    assert [p.pin.name for p in locked.of_tree("boot")] == ["make"]
    assert locked.wanted == (("boot", ("make",)), ("build", ("gcc", "make")))


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    sources = pins.read_sources_lock(_write(tmp_path, "sources.lock", SOURCES))
    text = pins.render_sources(reversed(sources))
    assert pins.read_sources_lock(_write(tmp_path, "again", text)) == sources
    assert pins.render_sources(sources) == text
    locked = pins.read_toolchain_lock(_write(tmp_path, "toolchain.lock", TOOLCHAIN))
    for older in (wanted.Older(), wanted.Older(suite="bookworm", packages=("more", "old"))):
        text = pins.render_toolchain(replace(locked, older=older))
        assert pins.read_toolchain_lock(_write(tmp_path, "again", text)) == replace(locked, older=older)


def test_two_trees_may_have_two_versions_of_a_package(tmp_path: Path) -> None:
    second = TOOLCHAIN.replace('trees = ["boot", "build"]', 'trees = ["build"]')
    second += TOOLCHAIN[TOOLCHAIN.index("[[package]]") :].partition('[[package]]\nname = "gcc"')[0]
    second = second.replace('trees = ["boot", "build"]', 'trees = ["boot"]')
    head, _, tail = second.rpartition(A)
    locked = pins.read_toolchain_lock(_write(tmp_path, "toolchain.lock", f"{head}{C}{tail}"))
    assert [p.pin.sha256 for p in locked.of_tree("boot")] == [C]
    assert [p.pin.sha256 for p in locked.of_tree("build")] == [B, A]
    assert pins.read_toolchain_lock(_write(tmp_path, "again", pins.render_toolchain(locked))) == locked


def test_the_committed_locks_answer_the_committed_recipes() -> None:
    sources = pins.read_sources_lock(ROOT / pins.SOURCES_LOCK)
    toolchain = wanted.read_toolchain(ROOT / wanted.TOOLCHAIN_TOML)
    locked = pins.read_toolchain_lock(ROOT / pins.TOOLCHAIN_LOCK)
    pins.check_fresh(ROOT, sources=sources, toolchain=toolchain, locked=locked)
    assert (ROOT / pins.SOURCES_LOCK).read_text(encoding="utf-8") == pins.render_sources(sources)
    assert (ROOT / pins.TOOLCHAIN_LOCK).read_text(encoding="utf-8") == pins.render_toolchain(locked)
    for tree in toolchain.trees:
        assert set(tree.packages) <= {p.pin.name for p in locked.of_tree(tree.name)}


@pytest.mark.parametrize("name", ["sources.lock", "toolchain.lock", "sources.toml", "toolchain.toml"])
def test_no_host_is_in_the_repository(name: str) -> None:
    assert "://" not in (ROOT / "recipes" / name).read_text(encoding="utf-8")


def check(folder: Path, sources: tuple[Source, ...], locked: ToolchainLock, *, toml: str = WANTED_SOURCES) -> None:
    (folder / "recipes").mkdir(exist_ok=True)
    _write(folder / "recipes", "sources.toml", toml)
    toolchain = wanted.read_toolchain(_write(folder, "toolchain.toml", WANTED_TOOLCHAIN))
    pins.check_fresh(folder, sources=sources, toolchain=toolchain, locked=locked)


def test_stale_sources_lock_is_refused(tmp_path: Path) -> None:
    have = pins.read_sources_lock(_write(tmp_path, "sources.lock", SOURCES))[:1]
    locked = replace(
        pins.read_toolchain_lock(_write(tmp_path, "toolchain.lock", TOOLCHAIN)), wanted=(("build", ("gcc", "make")),)
    )
    check(tmp_path, have, locked)
    check(tmp_path, have, locked, toml=WANTED_SOURCES + f'sha256 = "{A}"\nsize = 151398592\n')
    for old, new, says in (
        ("6.12.107-1", "6.12.108-1", r"its version is 6\.12\.107-1, sources\.toml asks for 6\.12\.108-1"),
        ('"GPL-2.0-only WITH Linux-syscall-note"', '"MIT"', "its licence is GPL-2.0-only .* asks for MIT"),
        (".orig.tar.xz", ".debian.tar.xz", "its file is .*"),
    ):
        with pytest.raises(UserError, match=rf"sources\.lock: linux: {says}; run \./doit lock --only linux"):
            check(tmp_path, have, locked, toml=WANTED_SOURCES.replace(old, new))
    with pytest.raises(UserError, match=r"sources\.lock: linux: has another sha256"):
        check(tmp_path, have, locked, toml=WANTED_SOURCES + f'sha256 = "{B}"\nsize = 151398592\n')
    with pytest.raises(UserError, match=r"source\.linux: is not locked"):
        check(tmp_path, (), locked)
    with pytest.raises(UserError, match=r"linux: sources\.toml no longer asks for it"):
        check(tmp_path, have, locked, toml="schema = 1\n[source]\n")


def test_stale_toolchain_lock_is_refused(tmp_path: Path) -> None:
    sources = pins.read_sources_lock(_write(tmp_path, "sources.lock", SOURCES))[:1]
    have = pins.read_toolchain_lock(_write(tmp_path, "toolchain.lock", TOOLCHAIN))
    have = replace(have, wanted=(("build", ("gcc", "make")),))
    check(tmp_path, sources, have)
    with pytest.raises(UserError, match=r"trees\.build: was resolved for other packages .*lock --only build"):
        check(tmp_path, sources, replace(have, wanted=(("build", ("gcc",)),)))
    with pytest.raises(UserError, match=r"suite: is for sid, not trixie"):
        check(tmp_path, sources, replace(have, suite="sid"))
    with pytest.raises(UserError, match=r"trees\.old: .*no longer"):
        check(tmp_path, sources, replace(have, wanted=(*have.wanted, ("old", ("gcc",)))))
    with pytest.raises(UserError, match=r"trees\.build: .*not locked; run \./doit lock --only build"):
        check(tmp_path, sources, replace(have, wanted=()))
    with pytest.raises(UserError, match=r"no tree 'x'; known: build"):
        wanted.read_toolchain(tmp_path / "toolchain.toml").tree("x")


def test_missing_lock(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"recipes/sources\.lock: no such file"):
        pins.read_sources_lock(tmp_path / "none")


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path
