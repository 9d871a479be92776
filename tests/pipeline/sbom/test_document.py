# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The SBOM of every profile: strictly valid, complete, stable, and true of the pinned sources and packages."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libarchive
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import get_spdx_licensing
from packageurl import PackageURL

from tests.pipeline.conftest import Edit
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.tree import Tree
from tools.pipeline.sbom import contents, document
from tools.pipeline.sbom.contents import Kind
from tools.pipeline.sbom.document import Material
from tools.pipeline.sources.pins import Source
from tools.pipeline.tasks.commands import publishing
from tools.pipeline.tasks.project import Project

PROFILES = ("production", "debug", "builtin")


def material_of(project: Project, name: str) -> Material:
    profile = project.recipes.profile(name)
    return publishing.material(project, profile, *publishing.pins_of(project, profile))


def files_of(project: Project, name: str) -> dict[str, str]:
    outputs = project.plan.deliverable(project.recipes.profile(name)).outputs
    return {file: hashlib.sha256(file.encode()).hexdigest() for file in (*outputs, "manifest.json")}


def rendered(project: Project, name: str = "production") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(document.render(material_of(project, name), files_of(project, name)))
    return found


def complaints(data: bytes) -> str:
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(data.decode())
    return str(found or "")


@pytest.mark.parametrize("name", PROFILES)
def test_it_is_strictly_valid(project: Project, name: str) -> None:
    data = document.render(material_of(project, name), files_of(project, name))
    assert complaints(data) == ""
    for old, new in ((b'"type": "firmware"', b'"type": "hardware"'), (b'"bom-ref"', b'"bom-reference"')):
        assert old in data
        assert complaints(data.replace(old, new, 1)) != ""


@pytest.mark.parametrize("name", PROFILES)
def test_references_lead_somewhere(project: Project, name: str) -> None:
    found = rendered(project, name)
    refs = [found["metadata"]["component"]["bom-ref"], *(one["bom-ref"] for one in found["components"])]
    assert len(refs) == len(set(refs))
    named = {ref for one in found["dependencies"] for ref in (one["ref"], *one["dependsOn"])}
    assert named <= set(refs)
    # Every part and every used source is in some file.
    inside = {ref for one in found["dependencies"][1:] for ref in one["dependsOn"]}
    parts = {ref for ref in refs if ref.startswith("part:")}
    used = {one["bom-ref"] for one in found["components"] if one.get("scope") == "required"}
    assert parts | used == inside


def test_the_same_contents_give_the_same_bytes(project: Project) -> None:
    made, files = material_of(project, "production"), files_of(project, "production")
    backwards = replace(made, packages=made.packages[::-1], sources=made.sources[::-1])
    data = document.render(made, files)
    assert document.render(backwards, dict(reversed(files.items()))) == data
    other = document.render(made, {**files, "vmlinuz": "0" * 64})
    serials = {json.loads(one)["serialNumber"] for one in (data, other)}
    assert len(serials) == 2
    assert not re.search(rb"timestamp|20\d\d-\d\d-\d\dT", data)


def test_everything_that_went_in_is_listed(project: Project) -> None:
    sources, packages = publishing.pins_of(project, project.recipes.profile("production"))
    found = rendered(project)["components"]
    by_ref = {one["bom-ref"]: one for one in found}
    assert len(packages) > 100
    for package in packages:
        tool = by_ref[f"tool:{package.pin.name}@{package.pin.version}"]
        assert tool["hashes"] == [{"alg": "SHA-256", "content": package.pin.sha256}]
        assert tool["scope"] == "excluded"
    for source in sources:
        (archive,) = by_ref[f"source:{source.pin.name}"]["externalReferences"]
        assert archive["hashes"] == [{"alg": "SHA-256", "content": source.pin.sha256}]
    assert by_ref["file:vmlinuz"]["hashes"][0]["content"] == hashlib.sha256(b"vmlinuz").hexdigest()


def test_patches_and_what_they_resolve(project: Project) -> None:
    by_ref = {one["bom-ref"]: one for one in rendered(project)["components"]}
    kernel = [patch["diff"]["url"] for patch in by_ref["source:linux"]["pedigree"]["patches"]]
    assert kernel == sorted(
        path.relative_to(project.root).as_posix() for path in project.root.glob("kernel-patches/6.12/*.patch")
    )
    firmware = by_ref["source:edk2"]["pedigree"]["patches"]
    resolved = {issue["id"] for patch in firmware for issue in patch.get("resolves", ())}
    assert "CVE-2024-13176" in resolved
    # A patch that is not applied resolves nothing.
    assert "CVE-2025-2295" not in resolved
    own = {patch["diff"]["url"]: patch["type"] for patch in firmware if "recipes/" in patch["diff"]["url"]}
    folder = project.root / "recipes/firmware/patches"
    assert own == {f"recipes/firmware/patches/{path.name}": "unofficial" for path in folder.glob("*.patch")}


def test_names_that_others_know(project: Project) -> None:
    found = {one["bom-ref"]: one for one in rendered(project)["components"]}
    version = document.upstream(next(s.pin.version for s in project.sources if s.pin.name == "linux"))
    assert found["source:linux"]["cpe"] == f"cpe:2.3:o:linux:linux_kernel:{version}:*:*:*:*:*:*:*"
    assert found["source:linux"]["purl"] == f"pkg:deb/debian/linux@{version}-1?arch=source"
    assert found["part:gimli"]["purl"] == "pkg:cargo/gimli@0.29.0"
    assert re.fullmatch(r"pkg:deb/debian/glibc@2\.\d+-\S+\?arch=source&distro=trixie", found["part:glibc"]["purl"])
    older = [one["purl"] for ref, one in found.items() if ref.startswith("tool:python3.11-minimal@")]
    assert [purl.rpartition("=")[2] for purl in older] == ["bookworm"]
    purls = [one["purl"] for one in found.values() if "purl" in one]
    assert len(purls) > 100
    for purl in purls:
        assert PackageURL.from_string(purl).to_string() == purl


def test_licences_are_spdx_expressions(project: Project) -> None:
    licensing = get_spdx_licensing()
    found = [entry["expression"] for one in rendered(project)["components"] for entry in one.get("licenses", ())]
    assert len(set(found)) > 8
    assert [text for text in found if licensing.validate(text).errors] == []
    assert licensing.validate("GPL-2.0-onlyy").errors


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("6.12.107-1", "6.12.107"),
        ("2025.02-8+deb13u1", "2025.02"),
        ("1.85.1+dfsg1-1+deb13u1", "1.85.1"),
        ("2:4.0.4-9", "4.0.4"),
        ("0.0.13", "0.0.13"),
        ("2.41-12+deb13u5", "2.41"),
    ],
)
def test_upstream_versions(version: str, wanted: str) -> None:
    assert document.upstream(version) == wanted


# ── recipes/contents.toml is true ──


@pytest.fixture(scope="module")
def parts(project: Project) -> dict[str, contents.Part]:
    found = contents.load(project.root, sources=[source.pin.name for source in project.sources])
    return dict(found.parts)


def test_the_kernel_of_another_series_is_of_another_source(project: Project) -> None:
    """Whose version is its own; everything else is the same."""
    for name, source in (("production", "linux"), ("6.18", "linux-6.18"), ("7.1-debug", "linux-7.1")):
        profile = project.recipes.profile(name)
        found = publishing.material(project, profile, *publishing.pins_of(project, profile))
        assert found.contents.files["vmlinuz"] == found.contents.files["vmlinuz-network"] == (source,)
        assert found.contents.sources[source].product == "o:linux:linux_kernel"
        assert found.contents.files["OVMF.fd"][0] == "edk2"
        assert source in {one.pin.name for one in found.sources}


def crates(data: bytes) -> Iterator[tuple[str, str]]:
    """Crates whose source paths are in compiled code, as Debian's Rust was built."""
    for name, version in re.findall(rb"/rust/deps/([a-z_0-9-]+)-([0-9]+\.[0-9]+\.[0-9]+)", data):
        yield name.decode(), version.decode()


def test_crates_inside_of_rusts_library(build_tree: Tree, parts: dict[str, contents.Part]) -> None:
    listed = {part.name: part.version for part in parts.values() if part.kind is Kind.CRATE}
    folder = build_tree.path / "usr/lib/rustlib/x86_64-unknown-linux-gnu/lib"
    found: dict[str, str] = {}
    # Its test harness is linked into tests only, and procedural macros run in the compiler.
    skipped = ("libtest", "libgetopts", "libunicode_width", "libproc_macro")
    for path in sorted(folder.glob("*.rlib")):
        if not path.name.startswith(skipped):
            found |= dict(crates(path.read_bytes()))
    assert found == listed


def test_the_agents_crates(project: Project, parts: dict[str, contents.Part]) -> None:
    lock = (project.root / "initramfs/agent/Cargo.lock").read_text()
    locked = dict(re.findall(r'name = "(.*)"\nversion = "(.*)"', lock))
    del locked["agent"]
    assert locked == {part.name: part.version for part in parts.values() if part.kind is Kind.CRATE and part.package}


def test_packages_that_are_linked_are_pinned(project: Project, parts: dict[str, contents.Part]) -> None:
    trees = (project.toolchain_lock.of_tree(name) for name in ("build", "qemu"))
    pinned = {package.pin.name: package.pin.version for tree in trees for package in tree}
    for part in parts.values():
        if part.package:
            assert part.package in pinned
            assert not part.version or pinned[part.package].startswith(part.version)


def test_what_the_firmware_carries(project: Project, parts: dict[str, contents.Part]) -> None:
    """Its decompressor."""
    (edk2,) = (source for source in project.sources if source.pin.name == "edk2")
    text = member(project, edk2, "LzmaCustomDecompressLib/Sdk/C/7zVersion.h")
    found = re.search(r'^#define MY_VERSION_NUMBERS +"([0-9.]+)"', text, re.MULTILINE)
    assert found
    assert parts["lzma-sdk"].version == found[1]


def member(project: Project, source: Source, ending: str) -> str:
    project.fetch([source.pin], title="fetching a source")
    with libarchive.file_reader(str(project.cas.path(source.pin.sha256))) as entries:
        for entry in entries:
            if entry.pathname.endswith(ending):
                return b"".join(entry.get_blocks()).decode()
    raise AssertionError(f"no {ending}")


# ── what is refused ──


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('["linux"]', '["linus"]'), r"files\.vmlinuz: 'linus' is neither a part nor a source"),
        (("[source.linux]", "[source.linus]"), r"source\.linus: is no source"),
        (('kind = "carried"\nversion = "19.00"', 'kind = "carried"'), r"part\.lzma-sdk\.version: is missing"),
        (('cpe = "a:gnu:glibc"', 'cpe = "glibc"'), r"part\.glibc\.cpe: .*part:vendor:product"),
        (('package = "libc6-dev"', 'package = "libc7-dev"'), r"part\.glibc\.package: 'libc7-dev' is in no tool tree"),
    ],
)
def test_what_is_wrong_is_named(project: Project, copied: Path, edit: Edit, change: tuple[str, str], says: str) -> None:
    edit(contents.FILE, *change)

    def read() -> bytes:
        changed = contents.load(copied, sources=[source.pin.name for source in project.sources])
        made = replace(material_of(project, "production"), contents=changed)
        return document.render(made, files_of(project, "production"))

    with pytest.raises(UserError, match=says):
        read()
