# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""./doit cve with what is really pinned and built, and with what mirrors have of newer versions."""

import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.pipeline.report import kit
from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.report import compiled, gather, kernel_list, newer, updates, vex
from tools.pipeline.report.states import State
from tools.pipeline.sources import mirrors, resolve
from tools.pipeline.sources.apt import Found
from tools.pipeline.sources.pins import Archive, Pin, PoolFile, Source
from tools.pipeline.sources.wanted import Kind, WantedSource
from tools.pipeline.tasks.commands import checks, report
from tools.pipeline.tasks.project import Project


@pytest.fixture
def subject(project: Project, tmp_path: Path) -> gather.Subject:
    """The production profile, without memory of what mirrors had."""
    project.fetch([source.pin for source in project.sources], title="fetching")
    found = report.subject(project, project.recipes.profile("production"))
    return replace(found, build=tmp_path)


def test_the_objects_of_the_build(project: Project, artifacts: Path) -> None:
    made = report.subject(project, project.recipes.profile("production")).compiled()
    assert {"init/main.c", "include/linux/mm.h", "arch/x86/entry/entry_64.S"} <= made.used
    assert made.compiled(["mm/vmscan.c"]) is True
    # The configuration has no exFAT, and the packed tree no other architecture.
    assert made.compiled(["fs/exfat/nls.c"]) is False
    assert made.compiled(["arch/arm64/kernel/setup.c"]) is False
    assert made.compiled(["fs/exfat/nls.c", "fs/exfat/Makefile"]) is None
    assert made.compiled(["fs/no-such-file.c"]) is None


def test_objects_of_another_tree(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"objects\.tar: does not fit its source: mm/gone\.c"):
        compiled.read(_tar(tmp_path / "objects.tar", {"mm/.gone.o.cmd": "source_mm/gone.o := /build/src/mm/gone.c\n"}),
                      _tar(tmp_path / "source.tar", {"mm/vmscan.c": ""}))  # fmt: skip


def _tar(path: Path, members: dict[str, str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def test_the_pins(subject: gather.Subject, artifacts: Path, tmp_path: Path) -> None:
    alone = gather.report(subject, listed=None)
    assert len(alone.of(State.FIXED)) > 500
    assert alone.of(State.OPEN) == []
    firmware = {one.cve: one for one in alone.findings if one.component == "edk2"}
    assert firmware["CVE-2024-13176"].state is State.FIXED
    assert firmware["CVE-2025-2295"].state is State.ABSENT
    found = gather.report(subject, listed=kit.write_list(tmp_path / "vulns"))
    states = {one.cve: one.state for one in found.findings}
    assert (states["CVE-2025-38206"], states["CVE-2026-20001"]) == (State.ABSENT, State.OPEN)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(vex.render(found, version="0").decode()) is None


def test_a_packaging_of_another_version(subject: gather.Subject) -> None:
    other = [replace(s, pin=replace(s.pin, version="6.12.1-1")) if s.pin.name == "linux-debian" else s
             for s in subject.sources]  # fmt: skip
    with pytest.raises(UserError, match=r"Debian's packaging of linux is not pinned"):
        gather.report(replace(subject, sources=other), listed=None)


# ── newer versions: the archive's signature cannot be had, so what apt would say is written down ──


@dataclass
class Index:
    """What apt says of an index."""

    listed: dict[str, bytes]
    asked: int = 0

    def fingerprint(self) -> str:
        return files.of_bytes(repr(sorted(self.listed)).encode())

    def source_versions(self, package: str) -> list[str]:
        self.asked += 1
        return sorted(self.listed) if package == "linux" else []

    def newest_first(self, versions: Sequence[str]) -> list[str]:
        return sorted(versions, reverse=True)

    def precedes(self, version: str, other: str) -> bool:
        return version < other

    def source(self, package: str, version: str) -> list[Found]:
        file = f"{package}_{version}.debian.tar.xz"
        data = self.listed[version]
        origin = PoolFile(archive=Archive.DEBIAN, path=f"pool/main/l/{package}/{file}")
        return [Found(file=file, origin=origin, size=len(data), sha256=files.of_bytes(data))]


@pytest.fixture
def place(tmp_path: Path) -> updates.Place:
    """A mirror that has 6.12.107-1 and 6.12.111-1, and an index that has 6.12.118-1, too."""
    versions = {
        "6.12.107-1": kit.packaging(kit.OLD),
        "6.12.111-1": kit.packaging(kit.NEW + kit.OLD),
        "6.12.118-1": b"?",
    }
    index = Index(versions)
    for version in list(versions)[:2]:
        origin = index.source("linux", version)[0].origin
        (tmp_path / "debian" / origin.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "debian" / origin.path).write_bytes(versions[version])
    known = mirrors.from_setting([f"{(tmp_path / 'debian').as_uri()}"])
    return updates.Place(apt=index, mirrors=known, root=tmp_path, build=tmp_path / "build",  # type: ignore[arg-type]
                         cas=Cas(root=tmp_path / "cache"), fetch=lambda _: None)  # fmt: skip


def sources(place: updates.Place, version: str = "6.12.107-1") -> list[Source]:
    index = place.apt
    listed = index.source("linux", version)[0]
    data = index.listed[version]  # type: ignore[attr-defined]  # ours, see above
    path = place.root / "packaging"
    path.write_bytes(data)
    place.cas.put_file(path)
    made = []
    for name, file in (("linux", "linux.orig.tar.xz"), ("linux-debian", listed.file)):
        want = WantedSource(name=name, kind=Kind.DEBIAN_SOURCE, version=version, licence="GPL-2.0-only",
                            package="linux", file=file)  # fmt: skip
        pin = Pin(name=name, version=version, sha256=listed.sha256, size=listed.size, origin=listed.origin, lock="x")
        made.append(Source(wanted=want, pin=pin))
    return made


def test_what_an_update_would_fix(place: updates.Place) -> None:
    now = sources(place)
    assert newer.known(place.build, place.cas, now[1]) is None
    assert updates.lines(place, ["linux", "edk2"], now=now) == [
        "linux 6.12.118-1: listed, but no mirror has its changelog",
        (
            "linux 6.12.107-1 → 6.12.111-1 would fix 4 CVEs, 1 of parts that a guest has by its name: CVE-2026-20001 "
            "(--all lists them)"
        ),
    ]
    # From now on it is known without any mirror.
    found = newer.known(place.build, place.cas, now[1])
    assert found is not None
    assert found.changelog is not None
    assert (found.changelog.version, found.listed) == ("6.12.111-1", "6.12.118-1")
    # But not of another pin, and not when the cache has lost it.
    later = sources(place, "6.12.111-1")
    assert newer.known(place.build, place.cas, later[1]) is None
    assert newer.known(place.build, Cas(root=place.root / "empty"), now[1]) is None
    (place.build / "cve/newer.json").write_text(json.dumps({"linux-debian": {"than": 1}}))
    assert newer.known(place.build, place.cas, now[1]) is None


def test_an_index_that_is_not_there_is_not_taken_for_nothing_newer(place: updates.Place) -> None:
    now = sources(place)
    place.apt.listed.clear()  # type: ignore[attr-defined]
    with pytest.raises(BuildError, match="the index has no source package linux"):
        updates.lines(place, ["linux"], now=now)
    assert newer.known(place.build, place.cas, now[1]) is None


def test_a_lock_ends_with_it(
    project: Project, place: updates.Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resolve, "lock", lambda **_: ["updated  linux"])
    monkeypatch.setattr(updates, "lines", lambda *_, **given: [f"update {sorted(given)} \x1b[31m"])
    checks._lock(project, only="linux", upgrade=False, yes=False, older=False)
    assert capfd.readouterr().err.splitlines() == [
        "   updated  linux", "   update ['before', 'every', 'listed', 'now'] \\x1b[31m"
    ]  # fmt: skip
    # Nobody's mirror is an error.
    monkeypatch.setattr(updates, "lines", _fails)
    checks._lock(project, only="linux", upgrade=False, yes=False, older=False)
    assert "note: what an update would fix is not known: no mirror" in capfd.readouterr().err
    # Where no index was asked for, none is.
    monkeypatch.setattr(updates, "lines", pytest.fail)
    checks._lock(project, only="sev-snp-measure", upgrade=False, yes=False, older=False)


def _fails(*_: object, **__: object) -> None:
    raise BuildError("no mirror")


def test_what_an_update_has_fixed(place: updates.Place) -> None:
    before, now = sources(place), sources(place, "6.12.111-1")
    lines = updates.lines(place, ["linux"], now=now, before=before)
    assert lines[0].startswith("linux 6.12.107-1 → 6.12.111-1 fixes 4 CVEs, 1 of parts")
    whole = updates.lines(place, ["linux"], now=now, before=before, every=True)
    assert [line.split()[0] for line in whole[1:5]] == [
        "CVE-2026-20003", "CVE-2026-20002", "CVE-2026-20001", "CVE-2025-38206",
    ]  # fmt: skip
    assert whole[3] == "   CVE-2026-20001  mm: vmscan: an invented fault"
    assert lines[1:] == ["linux 6.12.118-1: listed, but no mirror has its changelog"]
    del place.apt.listed["6.12.118-1"]  # type: ignore[attr-defined]
    asked = place.apt.asked  # type: ignore[attr-defined]
    # The same index is asked once.
    for _ in range(2):
        assert updates.lines(place, ["linux"], now=now) == ["linux 6.12.111-1: the mirrors have nothing newer"]
    assert place.apt.asked == asked + 1  # type: ignore[attr-defined]


def test_a_kernel_whose_packaging_no_mirror_has(place: updates.Place, tmp_path: Path) -> None:
    """Its own list says what a newer version fixes; without one, that nobody knows is said."""
    before, now = ([s for s in sources(place, v) if s.pin.name == "linux"] for v in ("6.12.107-1", "6.12.111-1"))
    (said,) = updates.lines(place, ["linux"], now=now, before=before)
    assert (
        said == "linux 6.12.107-1 → 6.12.111-1: no changelog of it is pinned; --kernel-list FOLDER says what it fixes"
    )
    listed = kernel_list.load(kit.write_list(tmp_path / "vulns"))
    (said,) = updates.lines(place, ["linux"], now=now, before=before, listed=listed)
    assert said.startswith("linux 6.12.107-1 → 6.12.111-1 fixes ")
    assert "CVEs, " in said
    assert updates.lines(place, ["linux"], now=now, before=now, listed=listed) == []
