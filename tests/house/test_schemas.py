# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""docs/schemas/ beside the code: what is written validates, and schema and reader know the same keys."""

import copy
import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from jsonschema import Draft202012Validator, ValidationError

from tests.launcher.launcher_kit import Out
from tools.launcher.acceptance import document as acceptance
from tools.launcher.bundle import make
from tools.launcher.config.runtime_config import load_config
from tools.launcher.measure import digest_file
from tools.launcher.trust import policy
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.step import Literal, Step
from tools.pipeline.engine.store.merkle import Digest, File
from tools.pipeline.publish import manifest
from tools.pipeline.repro import published
from tools.pipeline.sources import pins
from tools.sev import formats, toml
from tools.sev.workload.document import VERSION

Keys = set[tuple[str, ...]]
SCHEMAS = ("runtime", "launch-digests", "manifest")
ALL = (*SCHEMAS, "bundle", "workload", "pull-policy", "endorsement", "acceptance")
"""With those of files that no build makes: of commands, of owners (tests/sev/workload), of those who vouch."""
ANY = "*"
"""Stands for a name that is data: a CPU model, a file, a number of vCPUs."""


def schema(repository: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((repository / f"docs/schemas/{name}.schema.json").read_bytes())
    return found


def check(repository: Path, name: str, document: Any) -> None:
    Draft202012Validator(schema(repository, name)).validate(document)


def keys_of_schema(whole: dict[str, Any]) -> Keys:
    """Every path to a key that the schema names."""

    def walk(node: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if "$ref" in node:
            yield from walk(whole["$defs"][node["$ref"].removeprefix("#/$defs/")], path)
        for name, value in node.get("properties", {}).items():
            yield (*path, name)
            yield from walk(value, (*path, name))
        if isinstance(node.get("additionalProperties"), dict):
            yield from walk(node["additionalProperties"], (*path, ANY))
        for branch in node.get("anyOf", ()):
            yield from walk(branch, path)
        if "items" in node:
            yield from walk(node["items"], path)

    return set(walk(whole, ()))


def keys_of_document(whole: dict[str, Any], known: Keys) -> Keys:
    """Every path to a key of a document; a name under which the schema has anything is ANY."""

    def walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if isinstance(value, list):
            for item in value:
                yield from walk(item, path)
        if isinstance(value, dict):
            for name, inner in value.items():
                here = (*path, name)
                if here not in known:
                    here = (*path, ANY)
                else:
                    yield here
                yield from walk(inner, here)

    return set(walk(whole, ()))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """The keys that a strict reader asks for while the test runs; indices of arrays are left out."""
    found: Keys = set()
    take = toml.Table._take

    def record(self: toml.Table, key: str, kind: type, name: str) -> Any:
        path = [part.partition("[")[0] for part in self.path.split(".") if part]
        found.add((*path, key))
        return take(self, key, kind, name)

    monkeypatch.setattr(toml.Table, "_take", record)
    return found


@pytest.mark.parametrize("name", ALL)
def test_they_are_schemas(repository: Path, name: str) -> None:
    whole = schema(repository, name)
    Draft202012Validator.check_schema(whole)
    assert whole["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert sorted(path.name for path in (repository / "docs/schemas").iterdir()) == sorted(
        f"{name}.schema.json" for name in ALL
    )


def test_numbers_of_schemas(repository: Path) -> None:
    numbers = {
        name: schema(repository, name)["properties"]["version" if name == "workload" else "schema"]["const"]
        for name in ALL
        if name != "endorsement"  # its number is in its type
    }
    assert numbers == {
        "runtime": formats.RUNTIME_SCHEMA,
        "launch-digests": formats.DIGESTS_SCHEMA,
        "manifest": manifest.SCHEMA,
        "bundle": make.SCHEMA,
        "workload": VERSION,
        "pull-policy": policy.SCHEMA,
        "acceptance": acceptance.SCHEMA,
    }


# ── runtime.toml ──


@pytest.mark.parametrize("initramfs", [True, False])
def test_a_runtime_config_validates(repository: Path, tmp_path: Path, initramfs: bool) -> None:
    out = Out(tmp_path / "out", initramfs=initramfs)
    load_config(out.config)
    check(repository, "runtime", tomllib.loads(out.config.read_text()))


def test_the_reader_of_runtime_toml_asks_for_exactly_the_schemas_keys(
    repository: Path, tmp_path: Path, asked: Keys
) -> None:
    load_config(Out(tmp_path / "out", qemu=b"QEMU").config)
    assert asked == keys_of_schema(schema(repository, "runtime"))


@pytest.mark.parametrize("what", ["missing", "unknown"])
def test_the_schema_of_runtime_toml_refuses_what_the_reader_refuses(
    repository: Path, tmp_path: Path, what: str
) -> None:
    good = Out(tmp_path / "out", qemu=b"QEMU").data
    check(repository, "runtime", good)
    whole = keys_of_schema(schema(repository, "runtime"))
    for path in sorted(whole - {("artifacts", "initramfs"), ("artifacts", "qemu")}):
        document = copy.deepcopy(good)
        table = document
        for part in path[:-1]:
            table = table[part]
        if what == "missing":
            del table[path[-1]]
        else:
            table[f"{path[-1]}x"] = table[path[-1]]
        with pytest.raises(ValidationError):
            check(repository, "runtime", document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("machine/vcpus", 0),
        ("machine/vcpus", 256),
        ("machine/vcpus", True),
        ("machine/memory", "512"),
        ("machine/type", "pc"),
        ("machine/cpu", "EPYC,+x"),
        ("kernel/cmdline", "x" * 2048),
        ("kernel/cmdline", "é"),
        ("sev/mode", "tdx"),
        ("sev/reduced-phys-bits", 64),
        ("sev/sev/policy", 1 << 32),
        ("artifacts/kernel/file", "../x"),
        ("artifacts/kernel/size", 0),
        ("artifacts/kernel/sha256", "AB" * 32),
        ("devices/console", "vga"),
        ("launch-digest/snp", "0" * 64),
    ],
)
def test_values_that_both_refuse(repository: Path, tmp_path: Path, path: str, value: object) -> None:
    out = Out(tmp_path / "out")
    *parents, key = path.split("/")
    table = out.data
    for parent in parents:
        table = table[parent]
    table[key] = value
    out.write()
    with pytest.raises(ValidationError):
        check(repository, "runtime", out.data)
    with pytest.raises(Exception, match=path.replace("/", ".")):
        load_config(out.config)


# ── launch-digests.json ──


@pytest.mark.parametrize("initramfs", [True, False])
def test_launch_digests_validate(repository: Path, tmp_path: Path, initramfs: bool) -> None:
    out = Out(tmp_path / "out", initramfs=initramfs)
    check(repository, "launch-digests", json.loads(out.digests.read_text()))


def test_the_schema_of_launch_digests_has_exactly_the_keys_that_are_written(repository: Path, tmp_path: Path) -> None:
    """The launcher demands the same ones: it computes the file anew and takes no other key."""
    out = Out(tmp_path / "out")
    document = json.loads(out.digests.read_text())
    whole = keys_of_schema(schema(repository, "launch-digests"))
    assert keys_of_document(document, whole) == whole
    digest_file.check(load_config(out.config))
    broken = copy.deepcopy(document)
    del broken["modes"]["snp"]["digests"]["EPYC"]["64"]
    for wrong in ({**document, "more": 1}, broken, {**document, "schema": 1}):
        with pytest.raises(ValidationError):
            check(repository, "launch-digests", wrong)


# ── manifest.json ──


def made_up_manifest(repository: Path) -> dict[str, Any]:
    """The real locks, and one step on them whose result is made up."""
    step = Step(
        name="step",
        title="a step",
        argv=("true",),
        tools="build",
        inputs={"/inputs/values": Literal(data=b"values")},
        outputs=("file",),
    )
    node = File(digest=Digest(sha256="ab" * 32, size=6), executable=False)
    engine = SimpleNamespace(
        find=lambda _: SimpleNamespace(key="cd" * 32, outputs={"file": node}),
        tools_digest=lambda _: "ef" * 32,
        inputs=lambda _: {"/inputs/values": node},
    )
    known = manifest.declared(
        profile="production",
        version="0.1.0",
        steps=[step],
        sources=[],
        toolchain=pins.read_toolchain_lock(repository / pins.TOOLCHAIN_LOCK),
        recipes=["recipes/guest.toml"],
        measure=lambda _: node,
    )
    locked = pins.read_sources_lock(repository / pins.SOURCES_LOCK)
    # One as if no mirror had had what was asked for.
    other = [replace(source, wanted=replace(source.wanted, version="9")) for source in locked[:1]]
    known["inputs"]["sources"] = [pins.source_fields(source) for source in (*other, *locked[1:])]
    text = manifest.render(cast("Engine", engine), known, steps=[step], outputs={"file": step.output("file")})
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_manifest_validates(repository: Path) -> None:
    document = made_up_manifest(repository)
    check(repository, "manifest", document)
    for part in (document, document["steps"][0], document["inputs"], document["inputs"]["sources"][0]):
        part["more"] = 1
        with pytest.raises(ValidationError):
            check(repository, "manifest", document)
        del part["more"]


def test_the_schema_of_the_manifest_has_the_keys_that_are_written_and_read(
    repository: Path, tmp_path: Path, asked: Keys
) -> None:
    document = made_up_manifest(repository)
    whole = keys_of_schema(schema(repository, "manifest"))
    # The kinds of source that the lock has today are not all that there are.
    assert whole - keys_of_document(document, whole) <= {
        ("inputs", "sources", name) for name in ("urls", "path", "asked_version")
    }
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(document))
    asked.clear()  # of the locks' keys
    published.load(path)
    # The reader asks for every key at the top, and for none that the schema has not.
    assert {key[:1] for key in asked if len(key) == 1} == {key for key in whole if len(key) == 1}
    assert ("steps", "key") in asked
    assert {key[1] for key in asked if key[0] == "steps" and len(key) == 2} <= {
        key[1] for key in whole if key[0] == "steps" and len(key) == 2
    }


# ── what was built ──


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_was_built_validates(repository: Path, artifacts: Path, name: str) -> None:
    names = {"runtime": formats.RUNTIME_NAME, "launch-digests": formats.DIGESTS_NAME, "manifest": manifest.NAME}
    raw = (artifacts / names[name]).read_text()
    check(repository, name, tomllib.loads(raw) if name == "runtime" else json.loads(raw))
