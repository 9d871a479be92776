# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""manifest.json: what went into an output folder, by which commands, and what came out.

    locks, tool trees, files of the checkout ─┐
    steps, with their keys ───────────────────┼── manifest.json
    outputs ──────────────────────────────────┘

It holds no date, host or path, so it is reproducible itself; docs/reproducibility.md describes its keys. The
pins in it are whole, so that somebody else can compare them with a checkout's and rebuild (repro/rebuild.py).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tools.pipeline.engine import key
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.step import Blob, CheckoutFile, Literal, Output, Reference, Step
from tools.pipeline.engine.store.merkle import File
from tools.pipeline.sources import pins
from tools.pipeline.sources.pins import Source, ToolchainLock

NAME = "manifest.json"
SCHEMA = 2


def render(engine: Engine, known: dict[str, Any], *, steps: Sequence[Step], outputs: Mapping[str, Output]) -> bytes:
    """The manifest's bytes. Every step must have been made; `known` is what declared() said of them."""
    for name, tools in known["inputs"]["tools"].items():
        tools["digest"] = engine.tools_digest(name)
    document = {
        **known,
        "steps": [_step(engine, step) for step in sorted(steps, key=lambda step: step.name)],
        "outputs": {name: _measured(_made(engine, output)) for name, output in sorted(outputs.items())},
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def declared(
    *,
    profile: str,
    version: str,
    steps: Sequence[Step],
    sources: Iterable[Source],
    toolchain: ToolchainLock,
    recipes: Iterable[str],
    measure: Callable[[str], File],
) -> dict[str, Any]:
    """What is known before anything is made: the pins and files that the steps take.

    `recipes` are files that the graph was made from, `measure` gives the digest of a file of the checkout.
    """
    used = {reference.sha256 for step in steps for reference in step.inputs.values() if isinstance(reference, Blob)}
    taken = {
        reference.path for step in steps for reference in step.inputs.values() if isinstance(reference, CheckoutFile)
    }
    return {
        "schema": SCHEMA,
        "project": {"name": "sev-artifacts", "version": version},
        "profile": profile,
        "engine": key.ENGINE_VERSION,
        "inputs": {
            "sources": [
                pins.source_fields(source)
                for source in sorted(sources, key=lambda s: s.pin.name)
                if source.pin.sha256 in used
            ],
            "tools": {name: _tools(name, toolchain) for name in sorted({step.tools for step in steps})},
            "files": {path: _measured(measure(path)) for path in sorted({*taken, *recipes})},
        },
    }


def _tools(name: str, toolchain: ToolchainLock) -> dict[str, Any]:
    found = toolchain.of_tree(name)
    older = toolchain.older
    mixed = any(package.pin.name in older.packages for package in found)
    return {
        "suite": f"{toolchain.suite}, {older.suite}" if mixed else toolchain.suite,
        "packages": [pins.package_fields(package, trees=[name]) for package in found],
    }


def _step(engine: Engine, step: Step) -> dict[str, Any]:
    """A step as an independent rebuilder wants it: how it is called, on what, and what it gives.

    Enough to compute the key again: tests/pipeline/publish/test_manifest.py does.
    """
    result, inputs = engine.find(step), engine.inputs(step)
    assert result is not None
    return {
        "name": step.name,
        "key": result.key,
        "tools": step.tools,
        **key.describe(step, tools=engine.tools_digest(step.tools), inputs=inputs),
        "inputs": {
            path: {**_measured(inputs[path]), "executable": inputs[path].executable, "from": _origin(reference)}
            for path, reference in sorted(step.inputs.items())
        },
        "outputs": {name: _measured(node) for name, node in sorted(result.outputs.items())},
    }


def _origin(reference: Reference) -> str:
    match reference:
        case Blob(where=where):
            return where
        case CheckoutFile(path=path):
            return path
        case Literal():
            return "the recipes"
        case Output(step=step, name=name):
            return f"step {step.name}: {name}"


def _made(engine: Engine, output: Output) -> File:
    result = engine.find(output.step)
    assert result is not None
    return result.outputs[output.name]


def _measured(node: File) -> dict[str, object]:
    """Size in bytes and SHA-256 of a file."""
    return {"sha256": node.digest.sha256, "size": node.digest.size}
