# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the findings are made of, brought together for one profile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.guest.firmware import DebianPatch
from tools.pipeline.report import kernel_list, newer, states
from tools.pipeline.report.changelog import Changelog
from tools.pipeline.report.compiled import Compiled
from tools.pipeline.report.newer import Newer
from tools.pipeline.report.states import Kernel, Report
from tools.pipeline.sources.pins import SOURCES_LOCK, Source

_OTHERS = (
    "Anything of parts other than kernel and firmware: the agent, libraries, programs. The SBOM has their versions."
)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A profile: its kernel and firmware by their names in sources.lock, and what was decided about patches.

    `compiled` looks at the objects of its kernel, which takes seconds; `patches_file` has the decisions.
    """

    profile: str
    kernel: str
    firmware: str
    sources: Sequence[Source]
    patches: Sequence[DebianPatch]
    patches_file: str
    compiled: Callable[[], Compiled]
    build: Path
    cas: Cas


def packagings(subject: Subject) -> dict[str, Source]:
    """Component → pin of its packaging. UserError for one whose packaging is asked for and has another version.

    A kernel whose packaging nobody asks for, because no mirror has it, is not among them.
    """
    found = {}
    for name in (subject.kernel, subject.firmware):
        source = newer.packaging(subject.sources, name)
        if source is None and name == subject.kernel and not _asked_for(subject, name):
            continue
        if source is None:
            hint = "pin its *.debian.tar.xz in recipes/sources.toml, of the same version, and run ./doit lock"
            raise UserError(f"Debian's packaging of {name} is not pinned", where=SOURCES_LOCK, hint=hint)
        found[name] = source
    return found


def _asked_for(subject: Subject, name: str) -> bool:
    """Whether a packaging of the component is wanted in some version."""
    of = next((source.wanted for source in subject.sources if source.pin.name == name), None)
    wanted = (source.wanted for source in subject.sources if ".debian.tar." in source.wanted.file)
    return of is None or any(want.group == of.group for want in wanted)


def _nothing(subject: Subject, missing: list[str]) -> Changelog:
    """In place of the changelog of a kernel that has none."""
    source = next(source for source in subject.sources if source.pin.name == subject.kernel)
    package, version = source.wanted.package, source.pin.version
    missing.append(f"What {package} {version} has fixed: Debian's packaging of it, with the changelog, is not pinned.")
    return Changelog(package=package, version=version, date="1970-01-01", mentions=())


def report(subject: Subject, *, listed: Path | None) -> Report:
    """All findings. `listed` is a copy of the kernel's CVE list. UserError or BuildError for what cannot be read."""
    found = packagings(subject)
    data: list[tuple[str, str]] = []
    later: dict[str, Newer | None] = {}
    logs: dict[str, Changelog] = {}
    missing: list[str] = []
    for name, source in found.items():
        logs[name] = newer.pinned(subject.cas, source)
        data.append((f"Debian's changelog of {source.wanted.package} {source.pin.version}, which is pinned",
                     logs[name].date))  # fmt: skip
        later[name] = asked = newer.known(subject.build, subject.cas, source)
        if asked is not None and asked.changelog is not None:
            what = f"Debian's changelog of {source.wanted.package} {asked.changelog.version}"
            data.append((f"{what}, found on {asked.asked}", asked.changelog.date))
        elif asked is not None and not asked.listed:
            data.append((f"the mirrors have no newer {source.wanted.package}", asked.asked))
        if asked is not None and asked.listed:
            missing.append(f"What {source.wanted.package} {asked.listed} fixes: listed, but no mirror has it.")
    if subject.kernel not in logs:
        logs[subject.kernel], later[subject.kernel] = _nothing(subject, missing), None
    cves = kernel_list.load(listed) if listed else None
    if cves is not None:
        # A list without a date is as old as the oldest that there is.
        data.append((f"the kernel's CVE list, {len(cves.records)} records", cves.date or "1970-01-01"))
    kernel, said = states.kernel(
        Kernel(
            component=subject.kernel,
            pinned=logs[subject.kernel],
            newer=_changelog(later[subject.kernel], logs[subject.kernel]),
            listed=cves,
            compiled=subject.compiled() if cves else None,
        )
    )
    firmware, more = states.firmware(
        subject.firmware,
        logs[subject.firmware],
        _changelog(later[subject.firmware], logs[subject.firmware]),
        subject.patches,
        where=subject.patches_file,
    )
    return Report(
        profile=subject.profile,
        versions={name: log.version for name, log in logs.items()},
        findings=states.ordered([*kernel, *firmware]),
        data=tuple(data),
        unknown=(
            *missing,
            *said,
            *more,
            _OTHERS,
        ),
    )


def _changelog(asked: Newer | None, own: Changelog) -> Changelog | None:
    """The newer one; the pin's own where the mirrors were asked and had none."""
    if asked is None or (asked.changelog is None and asked.listed):
        return None
    return asked.changelog or own
