# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch check`: what the build asks of its own output, and `run` of any host's."""

from collections.abc import Callable

from tools.launcher.base.errors import CheckError, UserError
from tools.launcher.base.ui import Ui, write_json, write_stdout
from tools.launcher.base.values import Values
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import Artifact, RuntimeConfig, load_config
from tools.launcher.measure import digest_file
from tools.launcher.options.arguments import CONFIG, JSON, QUIET, default_config
from tools.launcher.options.parser import Group, Syntax

SYNTAX = Syntax(
    Group("options", CONFIG, JSON, QUIET),
    examples="exit status: 0 in order; 1 something is not; 2 a mistake in options, or no config that can be read",
)


def run(values: Values, _: Ui) -> int:
    """Check all; the answer on stdout, or CheckError with the first thing that is wrong."""
    config = load_config(values.config or default_config())
    named = (*config.artifacts, *((config.qemu,) if config.qemu is not None else ()))
    found = [(artifact.role, _wrong(_artifact(config, artifact))) for artifact in named]
    if all(reason is None for _, reason in found):
        # The digests are those of the artifacts that the config names: of others they say nothing.
        found.append(("launch digests", _wrong(lambda: digest_file.check(config))))
    wrong = [reason for _, reason in found if reason is not None]
    if values.json:
        document = {
            "schema": 1,
            "config": str(config.path),
            "profile": str(config.profile),
            "version": config.version,
            "in_order": not wrong,
            "checks": [{"name": name, "ok": reason is None, "detail": reason} for name, reason in found],
        }
        write_json(document)
        return 1 if wrong else 0
    if wrong:
        raise CheckError(wrong[0], details=tuple(wrong[1:]))
    what = f"{len(named)} artifacts and their launch digests in order"
    write_stdout(f"{config.path}: {config.profile} {config.version}, {what}\n")
    return 0


def _artifact(config: RuntimeConfig, artifact: Artifact) -> Callable[[], object]:
    return lambda: artifacts.verify(config, artifact)


def _wrong(check: Callable[[], object]) -> str | None:
    try:
        check()
    except UserError as error:
        return str(error)
    return None
