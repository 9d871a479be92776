# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""report.html: complete, stable, needs nothing but itself, and takes no text of others for markup."""

import base64
import hashlib
import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.report import kit
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.graph import Row
from tools.pipeline.report import facts, page, states
from tools.pipeline.report.facts import Facts
from tools.pipeline.report.states import Kernel, Report

EVIL = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"&{{ 7 * 7 }}"


def folder(root: Path, text: str = "linux") -> Path:
    """An output folder whose files say `text` wherever a text can be."""
    source = {"name": text, "version": text, "licence": text, "sha256": text}
    manifest = {
        "project": {"name": text, "version": text},
        "profile": text,
        "inputs": {"sources": [source], "tools": {text: {"packages": [1, 2]}}, "files": {"a": 1}},
    }
    digests = {"configured": {"cpu": text, "vcpus": text, "digests": {text: text}}}
    root.mkdir()
    (root / "manifest.json").write_text(json.dumps(manifest))
    (root / "launch-digests.json").write_text(json.dumps(digests))
    return root


def report(text: str) -> Report:
    findings, said = states.kernel(
        Kernel(component="linux", pinned=kit.old(), newer=kit.new(), listed=None, compiled=None)
    )
    findings = [replace(one, title=text, why=text, component=text) for one in findings]
    return Report(profile=text, versions={text: text}, findings=tuple(findings), data=((text, "2026-08-29"),),
                  unknown=(*said, text))  # fmt: skip


def whole(root: Path, text: str) -> Facts:
    """Facts in which every text is `text`."""
    made = folder(root / "out", text)
    steps = [
        Row(name=text, title=text, needs=(), key=None, there=True, seconds=10.0, origin=f"cache {text}"),
        Row(name=f"{text}2", title=text, needs=(text,), key=None, there=True, seconds=30.0),
        Row(name="never made", title=text, needs=(text,), key=None, there=False, seconds=None),
    ]
    return Facts(
        **facts.folder(made, {"manifest.json": [text]}, {"manifest.json": text}),
        commit=text,
        steps=steps,
        topics=facts.topics([(text, f"# {text}\nCONFIG_A=y\n# CONFIG_B is not set\n")], {"A": text}),
        cves=report(text),
        good=False,
        verdict=text,
        boot=[(text, text, text)],
        boot_commit=text,
        rebuilt=[(text, text)],
        endorsements=[facts.Endorsement(key=text, created=text, says=text)],
        digest=text,
    )


class Elements(html.parser.HTMLParser):
    """What a browser would make of it."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(data.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_no_text_is_markup(tmp_path: Path) -> None:
    good = Elements(page.render(whole(kit.empty(tmp_path / "good"), "plain")))
    evil = Elements(page.render(whole(kit.empty(tmp_path / "evil"), EVIL)))
    # The same elements, and none that the text would be.
    assert [tag for tag, _ in evil.tags] == [tag for tag, _ in good.tags]
    assert [tag for tag, _ in evil.tags].count("script") == 1
    assert not [tag for tag, given in evil.tags if tag == "img" or any(name.startswith("on") for name in given)]
    assert evil.text.count(EVIL) >= good.text.count("plain") - 5
    assert ("button", EVIL) in [(tag, given.get("data-copy")) for tag, given in evil.tags]
    # The control: without escaping it would have been.
    template = (Path(page.__file__).parent / "report.html.j2").read_text()
    assert template.count("| safe") == 2


def test_it_needs_nothing_but_itself(tmp_path: Path) -> None:
    data = page.render(whole(tmp_path, "plain"))
    assert page.render(whole(kit.empty(tmp_path / "again"), "plain")) == data
    found = Elements(data)
    assert not [given for _, given in found.tags if given.keys() & {"src", "style"}]
    assert {given["href"] for tag, given in found.tags if tag == "a"} >= {"#main", "#cves"}
    assert all(str(given["href"]).startswith("#") for _, given in found.tags if "href" in given)
    ids = [given["id"] for _, given in found.tags if "id" in given]
    assert {given["href"] for tag, given in found.tags if tag == "a"} <= {f"#{one}" for one in ids}
    # Only this style and this script may take effect.
    policy = next(given["content"] or "" for tag, given in found.tags if tag == "meta" and "http-equiv" in given)
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        match = re.search(rb"<%s>(.*?)</%s>" % (tag.encode(), tag.encode()), data, re.DOTALL)
        assert match is not None
        digest = base64.b64encode(hashlib.sha256(match[1]).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_pictures() -> None:
    assert [(bar.name, bar.width) for bar in page.sizes([("a", 1), ("b", 4), ("c", 0)])] == [
        ("b", 1000.0), ("a", 250.0), ("c", 0.0)
    ]  # fmt: skip
    rows = [
        Row(name="a", title="", needs=(), key=None, there=True, seconds=10.0),
        Row(name="b", title="", needs=(), key=None, there=True, seconds=4.0),
        Row(name="c", title="", needs=("a", "b"), key=None, there=True, seconds=30.0),
        Row(name="d", title="", needs=("a",), key=None, there=False, seconds=None),
    ]
    assert [(bar.name, bar.x, bar.width) for bar in page.timeline(rows)] == [
        ("a", 0.0, 250.0), ("b", 0.0, 100.0), ("c", 250.0, 750.0)
    ]  # fmt: skip
    assert [(bar.kind, bar.x, bar.width) for bar in page.shares([("open", 1), ("fixed", 3)])] == [
        ("open", 0.0, 250.0), ("fixed", 250.0, 750.0)
    ]  # fmt: skip
    whose = [
        replace(row, origin=origin) for row, origin in zip(rows, ("cache x", "run here", "run here", ""), strict=True)
    ]
    assert page.origins(whose) == [("run here", ["b", "c"]), ("cache x", ["a"])]
    assert page.origins(rows) == []
    assert page.sizes([]) == page.timeline([]) == page.shares([]) == []


def test_what_nobody_has_done_is_said(tmp_path: Path) -> None:
    nothing = replace(
        whole(tmp_path, "plain"), boot=(), rebuilt=(), endorsements=(), topics=(), steps=(), boot_commit=""
    )
    text = Elements(page.render(nothing)).text
    for words in (
        "Nobody has measured it here",
        "Not built twice here",
        "Endorsed by: none.",
        "Nothing is known of it",
    ):
        assert words in text


@pytest.mark.parametrize("name", ["manifest.json", "launch-digests.json"])
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"inputs": 1}', "null"])
def test_folders_that_are_none(tmp_path: Path, name: str, text: str) -> None:
    made = folder(tmp_path / "out")
    facts.folder(made, {}, {})
    (made / name).write_text(text)
    with pytest.raises(BuildError, match=rf"out/{name}: (has not what the report needs|is no JSON)"):
        facts.folder(made, {}, {})


def test_what_others_have_left(tmp_path: Path) -> None:
    assert facts.bench(tmp_path) == ([], "")
    assert facts.rebuilt(tmp_path) == []
    row = {"what": "power-on", "measured": "2 s", "beside": "9 s", "goal": "", "met": True}
    write(tmp_path / "bench/results.json", {"commit": "abc", "parts": {"boot": {"rows": [row], "data": {}}}})
    assert facts.bench(tmp_path) == ([("power-on", "2 s", "9 s")], "abc")
    write(tmp_path / "repro/kernel/result.json", {"target": "kernel", "reproducible": False, "variations": [1, 2]})
    files = {"a": {"reproduced": True}, "b": {"reproduced": False}}
    write(tmp_path / "rebuild/result.json", {"artifacts": files})
    assert facts.rebuilt(tmp_path) == [
        ("./doit repro, kernel", "NOT the same bytes, in environments that differ in 2 ways"),
        ("./doit rebuild", "1 of 2 files of a published manifest reproduced"),
    ]


def test_endorsements(tmp_path: Path) -> None:
    assert facts.endorsements(None) == []
    for name, kind in (("a.json", "urn:sev-artifacts:endorsement:1"), ("b.json", "https://slsa.dev/provenance/v1")):
        said = {"predicateType": kind, "predicate": {"svn": 3, "date": "2026-11-26T00:00:00Z"}}
        payload = base64.b64encode(json.dumps(said).encode()).decode()
        bundle = {"verificationMaterial": {"publicKey": {"hint": "key"}}, "dsseEnvelope": {"payload": payload}}
        write(tmp_path / name, bundle)
    (tmp_path / "c.json").write_text("no JSON")
    assert facts.endorsements(tmp_path) == [
        facts.Endorsement(key="key", created="2026-11-26T00:00:00Z", says="date 2026-11-26T00:00:00Z, svn 3")
    ]


def write(path: Path, document: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
