# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The named defaults of container engines: the agent's table is this one, and rules come to one form."""

import dataclasses
import json
from pathlib import Path

import pytest

from tests.house.test_schemas import schema
from tools.sev.workload import canonical, reader
from tools.sev.workload.calls import Argument, Calls, Rule, gathered
from tools.sev.workload.document import DEFAULT_CAPABILITIES, Capabilities, Document, Process, Rlimit, Tar
from tools.sev.workload.engines import ENGINES, table

TABLE = "initramfs/agent/src/workload/engines.json"
SMALL = Document(root=Tar(length=512, sha256="ab" * 32), process=Process(argv=("/app",)))


def test_the_agent_has_the_same_table(repository: Path) -> None:
    assert (repository / TABLE).read_bytes() == canonical.encode(table())


def test_the_schema_has_the_same_names(repository: Path) -> None:
    assert schema(repository, "workload")["$defs"]["engine"]["enum"] == sorted(ENGINES)


@pytest.mark.parametrize("name", ENGINES)
def test_what_a_name_means_could_stand_in_the_document(name: str) -> None:
    """Spelt out it is read, too, and is the same but for the name."""
    defaults = ENGINES[name]
    process = dataclasses.replace(SMALL.process, capabilities=name, rlimits=name, seccomp=name)
    named = dataclasses.replace(SMALL, process=process, masked_paths=name, read_only_paths=name)
    assert reader.parse(named.data, where="doc") == named
    process = dataclasses.replace(
        SMALL.process,
        capabilities=Capabilities.of(defaults.capabilities, uid=0),
        rlimits=tuple(Rlimit(name=limit, soft=soft, hard=hard) for limit, soft, hard in defaults.rlimits),
        seccomp=defaults.seccomp,
    )
    spelt = dataclasses.replace(
        named, process=process, masked_paths=defaults.masked_paths, read_only_paths=defaults.read_only_paths
    )
    assert reader.parse(spelt.data, where="doc") == spelt
    assert named.process.sets == spelt.process.sets
    assert named.sha256 != spelt.sha256
    assert json.loads(spelt.data)["process"]["seccomp"] == table()[name]["seccomp"]


def test_docker_has_one_capability_more_than_the_usual_ones() -> None:
    assert set(ENGINES["docker-1"].capabilities) - set(DEFAULT_CAPABILITIES) == {"mknod"}


def test_rules_come_to_one_form() -> None:
    """As libseccomp takes them: the first that holds whatever the arguments counts, and none for the default."""
    zero = (Argument(index=0, operator="eq", value=0),)
    rules = (
        Rule(calls=(5, 9), action="allow"),
        Rule(calls=(1,), action="allow", arguments=zero),
        Rule(calls=(5,), action=2),
        Rule(calls=(3,), action=7),
        Rule(calls=(9, 2), action="allow", arguments=zero),
        Rule(calls=(3, 4), action=1),
        Rule(calls=(1,), action="allow"),
    )
    assert gathered(1, rules) == Calls(
        default=1,
        rules=(
            Rule(calls=(2,), action="allow", arguments=zero),
            Rule(calls=(1, 5, 9), action="allow"),
            Rule(calls=(3,), action=7),
        ),
    )
    assert all(gathered(one.seccomp.default, one.seccomp.rules) == one.seccomp for one in ENGINES.values())
