# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The policy of `pull` in `verify`: whether those vouch for the artifacts of which launch digests are expected.

The digests themselves are computed here, from files that have just been compared with what was endorsed.
"""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from tools.launcher.attest.checks import Check, failed, passed
from tools.launcher.base.errors import CheckError, UserError
from tools.launcher.base.values import Values
from tools.launcher.config import artifacts
from tools.launcher.config.runtime_config import RuntimeConfig, load_config
from tools.launcher.measure import digest_file
from tools.launcher.trust import memory
from tools.launcher.trust.artifact import Artifact
from tools.launcher.trust.decision import Decision, decide
from tools.launcher.trust.files import beside, read_bundles
from tools.launcher.trust.memory import Seen
from tools.launcher.trust.policy import load_policy
from tools.sev.formats import digests_beside

_NAME = "endorsement"


def check_endorsed(options: Values) -> list[Check]:
    """The line on who endorsed; none without --pull-policy. UserError for what cannot be told."""
    if options.pull_policy is None:
        if options.statement or options.state is not None:
            raise UserError("--statement and --state belong to --pull-policy")
        return []
    if options.digest is not None or options.digests is not None:
        raise UserError("--pull-policy computes launch digests from artifacts: leave out --digest and --digests")
    policy = load_policy(options.pull_policy)
    config = load_config(options.config)
    artifact, bundles = beside(options.config.parent)
    bundles += read_bundles(options.statement)
    found: list[Decision] = []

    def change(seen: Seen) -> None:
        found.append(decide(policy, artifact, bundles, seen, now=datetime.now(UTC)))

    try:
        _compare(config, artifact)
        if options.workload is None:
            # Otherwise they are computed for the document, and the file is not read.
            digest_file.check(config)
        memory.update(options.state or memory.default_folder(), policy.name, policy.profile, change)
    except CheckError as error:
        return [failed(_NAME, "; ".join([str(error), *error.details]))]
    decision = found[0]
    names = ", ".join(name for name, _ in decision.endorsers)
    return [passed(_NAME, True, f"commit {decision.commit}, SVN {decision.svn}, by {names}", otherwise="")]


def _compare(config: RuntimeConfig, artifact: Artifact) -> None:
    """CheckError unless what the digests are made of are files of the artifact."""
    names = [config.path.name, *(one.file for one in config.artifacts), digests_beside(config.path.name)]
    for one in config.artifacts:
        artifacts.verify(config, one)
    for name in names:
        file = artifact.files.get(name)
        if file is None or file.sha256 != _sha256(config.path.parent / name):
            raise CheckError("is not the endorsed artifact's", where=str(config.path.parent / name))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=str(path)) from None
