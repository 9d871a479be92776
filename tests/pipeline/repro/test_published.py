# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The verdict on a manifest names the bytes that it is about."""

import hashlib
import json
from pathlib import Path

from tools.pipeline.publish import manifest
from tools.pipeline.repro import published, rebuild

_FILE = {"sha256": "0" * 64, "size": 1}
_MANIFEST = {
    "schema": manifest.SCHEMA,
    "engine": 1,
    "project": {"name": "p", "version": "1"},
    "profile": "production",
    "inputs": {"sources": [{"name": "linux"}], "tools": {}, "files": {"a": _FILE}},
    "steps": [{"name": "s", "key": "0" * 64, "outputs": {"o": _FILE}}],
    "outputs": {"o": _FILE},
}


def test_a_manifest_that_is_replaced_while_everything_is_built(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(_MANIFEST))
    told = hashlib.sha256(path.read_bytes()).hexdigest()
    found = published.load(path)
    path.write_text("another")
    verdict = rebuild.judge(found, {"o": "0" * 64}, found.document, order=["s"])
    assert verdict.good
    assert rebuild._document(found, verdict, cached=False)["manifest"] == told
