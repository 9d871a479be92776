# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The options of `./doit attack`, and the whole run."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tools.attack import catalogue
from tools.attack.base.lab import Lab
from tools.attack.base.model import Part, Row
from tools.attack.base.target import Target
from tools.attack.front import foreign, registry, table
from tools.attack.front.runner import Runner, once
from tools.attack.guests import baseline
from tools.launcher.base.errors import LauncherError
from tools.pipeline.base import ambient, children, files, ui
from tools.pipeline.base.errors import SevArtifactsError, UserError
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.project import Project

_JOBS = 2  # guests at a time: each has a processor to itself

_EPILOG = """\
A row reads: what the host did, what the guest did, and the control beside it.
  held          the attack did not succeed; the same attack was seen to succeed against a build without the
                defence (or, where there is none, the honest case passed)
  broken        the attack succeeded
  inconclusive  nothing was shown: the control did not succeed, or the row crashed; its reason stands there
  unjudged      these artifacts, given with --out, are not such that the attack says anything about them

Exit status: 0 all held, 1 something did not, 2 a mistake in the options.

  ./doit attack --short                      what ./doit test runs, under four minutes
  ./doit attack --topic boot,storage         two topics
  ./doit attack --only boot/blobs            one kind; --only 'channel/*/flood*' works as well
  ./doit attack --out DIR --firmware X.fd    somebody else's artifacts; those that are not there are ours, and
                                             what would be said of them is unjudged

docs/attack.md says how to add an attack: it is one file.
"""


def parser() -> argparse.ArgumentParser:
    """What can be typed."""
    made = argparse.ArgumentParser(
        prog="./doit attack",
        description="Play the hostile host against built artifacts, under emulation, and print what held.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("--list", action="store_true", help="only name the attacks; those of the short form have an s")
    made.add_argument("--short", action="store_true", help="the short form")
    made.add_argument("--json", action="store_true", help="the table as JSON on standard output")
    made.add_argument("--topic", default="", help="only these topics: boot, acpi, devices, storage, channel, life")
    made.add_argument("--only", default="", metavar="NAME", help="only these: TOPIC/KIND, or TOPIC/KIND/NAME with *")
    made.add_argument("--out", default="", metavar="DIR", help="judge the artifacts in this folder, not those in out/")
    for role in foreign.ROLES:
        made.add_argument(f"--{role}", default="", metavar="FILE", help=f"with --out: which of its files is the {role}")
    return made


@dataclass(frozen=True, kw_only=True)
class _Judged:
    target: Target
    parts: frozenset[Part]
    foreign: bool


def main(argv: Sequence[str], package: ModuleType = catalogue) -> int:
    """Run; the exit status. `package` is where the attacks lie."""
    options = parser().parse_args(argv)
    try:
        return _run(options, package)
    except (SevArtifactsError, LauncherError) as error:
        ui.error(str(error), who="attack: ")
        return error.exit_status
    except OSError as error:
        ui.error(f"{error.strerror or error}: {error.filename}", who="attack: ")
        return 1
    except (KeyboardInterrupt, children.Interrupted):
        children.stop()
        ui.line("attack: interrupted")
        return 130


def _run(options: argparse.Namespace, package: ModuleType) -> int:
    found = registry.entries(package)
    if options.list:
        ui.result(table.listing(registry.choose(found, topics=options.topic, only=options.only)), sys.stdout)
        return 0
    named = {role: getattr(options, role) for role in foreign.ROLES if getattr(options, role)}
    if named and not options.out:
        raise UserError(f"--{min(named)} belongs to --out", where="./doit attack", hint="add --out DIR")
    chosen = registry.choose(found, topics=options.topic, only=options.only, short=options.short)
    project = Project.load()
    own = Target(name="shipped", folder=project.out(project.recipes.profile(DEFAULT_PROFILE)))
    with tempfile.TemporaryDirectory(prefix="sev-attack-") as work:
        lab = Lab(project=project, own=own, work=Path(work))
        judged = _judged(lab, options.out, named)
        runner = Runner(
            lab=lab,
            target=judged.target,
            honest=once(baseline.reach),
            parts=judged.parts,
            foreign=judged.foreign,
            jobs=min(_JOBS, ambient.cpu_count()),
        )
        began = ambient.monotonic()
        rows = runner.run(chosen, _Progress(total=len(chosen)))
        # While the folder with somebody else's artifacts is there.
        return _print(rows, judged.target, as_json=options.json, seconds=ambient.monotonic() - began)


def _judged(lab: Lab, out: str, named: dict[str, str]) -> _Judged:
    if not out:
        if not (lab.own.folder / "runtime.toml").is_file():
            raise UserError(f"{lab.own.folder.name}/ is not built", hint="./doit build")
        return _Judged(target=lab.own, parts=frozenset(Part), foreign=False)
    target, parts = foreign.target(lab, Path(out), named)
    return _Judged(target=target, parts=parts, foreign=True)


class _Progress:
    def __init__(self, *, total: int) -> None:
        self._total = total
        self._count = 0

    def __call__(self, row: Row) -> None:
        self._count += 1
        ui.line(table.progress(row, number=self._count, total=self._total))


def _print(rows: list[Row], target: Target, *, as_json: bool, seconds: float) -> int:
    if as_json:
        paths = {"kernel": target.kernel, "firmware": target.firmware}
        if target.config.initramfs is not None:
            paths["initramfs"] = target.initramfs
        text = table.document(rows, {role: files.of_file(path) for role, path in paths.items()})
    else:
        text = table.text(rows, sys.stdout)
    ui.result(text, sys.stdout)
    if as_json:
        ui.line(table.summary(rows))
    ui.line(f"in {ui.duration(seconds)}")
    return table.status(rows)
