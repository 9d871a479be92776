# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.bench [NAME…]`, from the checkout's root; `./doit bench` builds what is measured first.

A goal that is missed is printed as missed and changes no exit status: only what cannot be measured fails.
"""

import argparse
import sys
from collections.abc import Callable

from tests.bench import boot, bounce, digests, launcher_start, publishing, qemu, report, sizes
from tests.bench.builds import noop, overhead, profiles, remote, repro, spread
from tests.bench.power_on import profile, scale
from tests.bench.report import Part
from tests.engines import bench as engines
from tools.launcher.base.errors import LauncherError
from tools.pipeline.base import ui
from tools.pipeline.base.errors import SevArtifactsError
from tools.pipeline.tasks.project import Project


def main() -> int:
    """Run the benchmarks in turn, or write the table of the last results into docs/benchmarks.md."""
    options = _parser().parse_args()
    runs: dict[str, Callable[[Project], Part]] = {
        "sizes": sizes.measure,
        "noop": lambda project: noop.measure(project, runs=options.runs),
        "digests": lambda project: digests.measure(project, runs=options.runs),
        "launcher_start": lambda project: launcher_start.measure(project, runs=options.runs),
        "publishing": lambda project: publishing.measure(project, runs=options.runs),
        "boot": lambda project: boot.measure(project, runs=options.runs),
        "scale": lambda project: scale.measure(project, runs=options.runs),
        "qemu": lambda project: qemu.measure(project, runs=options.runs),
        "bounce": bounce.measure,
        "engines": lambda project: engines.measure(project, runs=options.runs),
        "overhead": lambda project: overhead.measure(project, pairs=options.pairs),
        "profiles": profiles.measure,
        "repro": repro.measure,
        "remote": remote.measure,
        "spread": spread.measure,
    }
    unknown = [name for name in options.names if name not in {*runs, "docs"}]
    if unknown:
        ui.error(f"bench: there is no {unknown[0]!r}")
        return 2
    name = ""
    try:
        project = Project.load()
        if options.profile:
            name = "boot"
            profile.show(project, runs=options.runs, as_json=options.json)
            return 0
        for name in options.names or report.ORDER:
            if name == "docs":
                report.write_docs(project)
                continue
            part = runs[name](project)
            report.save(project, name, part)
            report.show(part)
    except (SevArtifactsError, LauncherError) as error:
        ui.error(f"bench {name}: {error}")
        return error.exit_status if isinstance(error, SevArtifactsError) else 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", help=f"{', '.join(report.ORDER)}, or docs (all but docs)")
    parser.add_argument("--runs", type=_count, default=5, help="how often noop, digests and boot measure (5)")
    parser.add_argument("--profile", action="store_true", help="a profile of the start, in place of benchmarks")
    parser.add_argument("--json", action="store_true", help="the profile as JSON")
    parser.add_argument("--pairs", type=_count, default=3, help="pairs of builds that overhead compares (3)")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("1 to 1000")
    return number


if __name__ == "__main__":
    sys.exit(main())
