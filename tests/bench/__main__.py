# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.bench NAME`, from the checkout's root; `./doit bench` builds what is measured first.

A goal that is missed is printed as missed and changes no exit status: only what cannot be measured fails.
"""

import argparse
import sys
from collections.abc import Callable

from tests.bench import boot, digests, noop, overhead, report, repro, sizes
from tests.bench.report import Part
from tools.launcher.base.errors import LauncherError
from tools.pipeline.base import ui
from tools.pipeline.base.errors import SevArtifactsError
from tools.pipeline.tasks.project import Project


def main() -> int:
    """Run one benchmark, or write the table of the last results into docs/benchmarks.md."""
    options = _parser().parse_args()
    parts: dict[str, Callable[[Project], Part]] = {
        "sizes": sizes.measure,
        "noop": lambda project: noop.measure(project, runs=options.runs),
        "digests": lambda project: digests.measure(project, runs=options.runs),
        "boot": lambda project: boot.measure(project, runs=options.runs),
        "overhead": lambda project: overhead.measure(project, pairs=options.pairs),
        "repro": repro.measure,
    }
    try:
        project = Project.load()
        if options.name == "docs":
            report.write_docs(project)
        else:
            part = parts[options.name](project)
            report.save(project, options.name, part)
            report.show(part)
    except SevArtifactsError as error:
        ui.line(f"{ui.paint('error', '31')}: bench {options.name}: {error}")
        return error.exit_status
    except LauncherError as error:
        ui.line(f"{ui.paint('error', '31')}: bench {options.name}: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("name", choices=["sizes", "noop", "digests", "boot", "overhead", "repro", "docs"])
    parser.add_argument("--runs", type=_count, default=5, help="how often noop, digests and boot measure (5)")
    parser.add_argument("--pairs", type=_count, default=1, help="pairs of builds that overhead compares (1)")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("1 to 1000")
    return number


if __name__ == "__main__":
    sys.exit(main())
