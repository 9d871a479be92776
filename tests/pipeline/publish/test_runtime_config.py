# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""runtime.toml: rendered from the repository's own template, parsed back, and errors in templates."""

import hashlib
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tools.pipeline.publish.runtime_config import Artifact

from tests.pipeline import sample
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.publish import runtime_config
from tools.pipeline.recipes.load import Recipes
from tools.sev import policy

DIGESTS = {"snp": "ab" * 48, "sev-es": "cd" * 32, "sev": "ef" * 32}


@pytest.fixture(scope="module")
def loaded() -> Recipes:
    """Recipes that differ from the shipped ones."""
    return sample.recipes()


@pytest.fixture(scope="module")
def template(repository: Path) -> str:
    """The repository's template."""
    return (repository / runtime_config.TEMPLATE).read_text()


@pytest.fixture
def artifacts(tmp_path: Path) -> dict[str, Artifact]:
    """Two artifacts with known bytes."""
    (tmp_path / "bzImage").write_bytes(b"kernel")
    (tmp_path / "fd").write_bytes(b"firmware!")
    return {
        "kernel": Artifact.of(tmp_path / "bzImage", file="vmlinuz"),
        "firmware": Artifact.of(tmp_path / "fd", file="OVMF.fd"),
    }


def render(template: str, loaded: Recipes, artifacts: dict[str, Artifact], **change: Any) -> str:
    profile = loaded.profile("production")
    if "cmdline" in change:
        profile = replace(profile, cmdline=change["cmdline"])
    return runtime_config.render(
        template,
        profile=profile,
        guest=loaded.guest,
        artifacts=artifacts,
        version=change.get("version", "1.2"),
        digests=DIGESTS,
    )


def test_says_what_the_recipes_say(template: str, loaded: Recipes, artifacts: dict[str, Artifact]) -> None:
    got = tomllib.loads(render(template, loaded, artifacts))
    assert got == {
        "schema": 3,
        "version": "1.2",
        "profile": "production",
        "artifacts": {
            "kernel": {"file": "vmlinuz", "sha256": hashlib.sha256(b"kernel").hexdigest(), "size": 6},
            "firmware": {"file": "OVMF.fd", "sha256": hashlib.sha256(b"firmware!").hexdigest(), "size": 9},
        },
        "machine": {"type": "pc-q35-9.1", "cpu": "EPYC-Milan", "vcpus": 3, "memory": "2G"},
        "kernel": {"cmdline": "panic=-1 quiet sev_agent.profile=production"},
        "sev": {
            "mode": "sev-es",
            "reduced-phys-bits": 5,
            "snp": {"policy": 0x120133},
            "sev-es": {"policy": 7, "legacy-vm-type": True},
            "sev": {"policy": 0x02010001},
        },
        "devices": {"console": "none", "rng": False},
        "launch-digest": DIGESTS,
    }


def test_the_policies_names_stand_above_their_bits(
    template: str, loaded: Recipes, artifacts: dict[str, Artifact]
) -> None:
    lines = render(template, loaded, artifacts).splitlines()
    for section, bits, layout in (
        ("[sev.snp]", 0x120133, policy.SNP),
        ("[sev.sev-es]", 7, policy.SEV_ES),
        ("[sev.sev]", 0x02010001, policy.SEV),
    ):
        at = lines.index(section)
        assert lines[at + 1 : at + 3] == [f"# {policy.spell(bits, layout)}", f"policy = {bits:#x}"]


def test_can_be_moved_and_is_commented(
    template: str, loaded: Recipes, artifacts: dict[str, Artifact], tmp_path: Path, repository: Path
) -> None:
    text = render(template, loaded, artifacts)
    assert str(tmp_path) not in text
    assert str(repository) not in text
    assert text.count("\n# ") >= 8
    assert text.endswith("\n")
    assert render(template, loaded, artifacts) == text


@pytest.mark.parametrize(
    "text",
    [
        'quote " and backslash \\',
        "tab\tnewline\ncarriage\r",
        "\x01\x1f\x7f",
        "…“”ß",
        "beyond the basic plane: \U0001f600",
        '"""',
        "${{ x }} {% y %} # no comment",
        " leading and trailing ",
        "\u2028\u0085",
    ],
)
def test_quoting(template: str, loaded: Recipes, artifacts: dict[str, Artifact], text: str) -> None:
    got = tomllib.loads(render(template, loaded, artifacts, cmdline=text, version=text))
    assert got["kernel"]["cmdline"] == text
    assert got["version"] == text


def test_the_filter_keeps_types(loaded: Recipes, artifacts: dict[str, Artifact]) -> None:
    text = render("a = {{ 1 | toml }}\nb = {{ true | toml }}\nc = {{ '1' | toml }}\n", loaded, artifacts)
    assert tomllib.loads(text) == {"a": 1, "b": True, "c": "1"}


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("a = 1\nb = {{ nosuch }}\n", "recipes/runtime.toml.j2:2: 'nosuch' is undefined"),
        ("a = 1\nb = {{ nosuch | toml }}\n", "recipes/runtime.toml.j2:2: 'nosuch' is undefined"),
        ("\n\n{{ guest.vcpu }}", "recipes/runtime.toml.j2:3: '"),
        ("a = 1\n\n{% for x in %}\n", "recipes/runtime.toml.j2:3: "),
        ("a = 1\n{{ 1 | tmol }}\n", "recipes/runtime.toml.j2:2: No filter named 'tmol'"),
        ("{% if true %}", "recipes/runtime.toml.j2:1: "),
        ("\n{{ 1 // 0 }}", "recipes/runtime.toml.j2:2: "),
        ("\n{{ 1 + 'a' }}", "recipes/runtime.toml.j2:2: "),
        ("{% include 'x' %}", "recipes/runtime.toml.j2:1: no loader"),
        ("a = {{ guest.cpu }}\n", "recipes/runtime.toml.j2: the template gives no valid TOML: "),
        ("a = 1\na = 1\n", "recipes/runtime.toml.j2: the template gives no valid TOML: "),
    ],
)
def test_template_errors(template: str, line: str, loaded: Recipes, artifacts: dict[str, Artifact]) -> None:
    with pytest.raises(UserError) as info:
        render(template, loaded, artifacts)
    assert str(info.value).startswith(line)
    assert len(str(info.value).splitlines()) == 1


def test_the_digests_come_from_launch_digests_json(tmp_path: Path) -> None:
    path = tmp_path / "launch-digests.json"
    path.write_text('{"configured": {"digests": {"snp": "aa"}}}')
    assert runtime_config.read_digests(path) == {"snp": "aa"}
    for damaged in ("", "[]", "{}", '{"configured": 1}'):
        path.write_text(damaged)
        with pytest.raises(BuildError, match=r"launch-digests.json: is damaged; delete it"):
            runtime_config.read_digests(path)
