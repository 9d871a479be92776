# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Pushing to and asking a registry that breaks connections and lies; each lie beside the honest answer."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pipeline.registry.liar import NAME, Answer, Asked, Liar
from tools.pipeline.base.errors import BuildError
from tools.pipeline.registry import oci, target
from tools.pipeline.registry.connection import Lost
from tools.pipeline.registry.layout import Layout
from tools.pipeline.registry.oci import Content
from tools.pipeline.registry.target import Attachment, Whole

DATA = random.Random(1).randbytes(100_000)
BLOB = oci.of_bytes(DATA, "application/octet-stream", annotations={oci.TITLE: "data"})
TYPE = "application/vnd.example.v1"
WHOLE = target.whole(TYPE, [BLOB, oci.of_bytes(b"second", "text/plain")], annotations={"a": "b"})


@pytest.fixture
def liar() -> Iterator[Liar]:
    server = Liar()
    yield server
    server.close()


def attachment(text: bytes) -> Attachment:
    made = target.whole(
        "application/vnd.example.note", [oci.of_bytes(text, "text/plain")], annotations={},
        subject=WHOLE.manifest.descriptor,
    )  # fmt: skip
    return Attachment(whole=made)


def test_the_tag_comes_last_and_a_second_push_sends_no_blob(liar: Liar) -> None:
    target.push(liar.client(), WHOLE, [attachment(b"note")], tag="v1")
    puts = [repr(one) for one in liar.asked if one.method == "PUT" and one.path.startswith("manifests")]
    assert puts[0] == f"PUT manifests/{WHOLE.manifest.descriptor.digest}"
    assert puts[-1] == "PUT manifests/v1"
    assert [one.method for one in liar.asked[-1:]] == ["PUT"]
    first = liar.count("PUT", "blobs/")
    tally = target.push(liar.client(), WHOLE, [attachment(b"note")], tag="v1")
    assert liar.count("PUT", "blobs/") == first
    assert (tally.sent, tally.bytes_sent) == (0, 0)
    assert liar.tags["v1"] == WHOLE.manifest.descriptor.digest


def test_the_same_content_gives_the_same_manifest() -> None:
    again = target.whole(TYPE, [BLOB, oci.of_bytes(b"second", "text/plain")], annotations={"a": "b"})
    assert again.manifest.data == WHOLE.manifest.data
    other = target.whole(TYPE, [BLOB, oci.of_bytes(b"third", "text/plain")], annotations={"a": "b"})
    assert other.manifest.descriptor.sha256 != WHOLE.manifest.descriptor.sha256


WRITES = 8
"""POST and PUT for each of three blobs, the manifest, the tag."""


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("step", range(WRITES))
def test_a_push_that_stops_anywhere_leaves_no_tag_and_goes_on_later(liar: Liar, step: int, heard: bool) -> None:
    """From the n-th request that writes on, the registry does not answer; it may have done what was asked."""
    writes = 0

    def gone(asked: Asked) -> bool:
        nonlocal writes
        writes += asked.method in {"POST", "PUT", "PATCH"}
        return writes > step

    if heard:
        liar.lie = lambda asked, answer: None if gone(asked) else answer
    else:
        liar.cut_body = lambda asked, _: 0 if gone(asked) else None
    with pytest.raises(BuildError, match=f"{liar.host}/{NAME}: .*3 tries"):
        target.push(liar.client(), WHOLE, [], tag="v1")
    assert ("v1" in liar.tags) == (heard and step == WRITES - 1)
    before = dict(liar.blobs)
    liar.lie, liar.cut_body = (lambda _, answer: answer), (lambda _asked, _length: None)
    tally = target.push(liar.client(), WHOLE, [], tag="v1")
    assert tally.there == len(before)
    assert liar.tags["v1"] == WHOLE.manifest.descriptor.digest
    assert liar.blobs[BLOB.descriptor.digest] == DATA


def test_a_large_blob_goes_in_parts_and_goes_on_after_a_break(liar: Liar) -> None:
    broken: list[str] = []

    def lie(asked: Asked, answer: Answer) -> Answer | None:
        # The second part arrives, its answer does not.
        if asked.method == "PATCH" and asked.headers["content-range"].startswith("30000-") and not broken:
            broken.append(asked.headers["content-range"])
            return None
        return answer

    liar.lie = lie
    assert liar.client(part=30_000).blob(BLOB)
    assert liar.blobs[BLOB.descriptor.digest] == DATA
    ranges = [one.headers["content-range"] for one in liar.asked if one.method == "PATCH"]
    assert broken == ["30000-59999"]
    assert ranges == ["0-29999", "30000-59999", "60000-89999", "90000-99999"]
    assert liar.count("POST", "blobs/uploads/") == 1


def test_a_break_within_a_part_begins_the_blob_anew(liar: Liar) -> None:
    cuts: list[str] = []

    def cut(asked: Asked, length: int) -> int | None:
        if asked.method == "PATCH" and not cuts and asked.headers["content-range"].startswith("30000-"):
            cuts.append(asked.path)
            # As distribution 2.8 does: the upload is gone.
            liar.uploads.pop(asked.path.rpartition("/")[2])
            return length // 2
        return None

    liar.cut_body = cut
    assert liar.client(part=30_000).blob(BLOB)
    assert cuts
    assert liar.blobs[BLOB.descriptor.digest] == DATA
    assert liar.count("POST", "blobs/uploads/") == 2


def test_a_registry_that_is_busy_is_asked_again(liar: Liar) -> None:
    busy = [503, 429]
    liar.lie = lambda _, answer: (busy.pop(), {}, b"") if busy else answer
    assert liar.client().blob(BLOB)
    assert not busy


# ── lies ──

Lies = Callable[[Asked, Answer], Answer]


def headers(method: str, path: str, **changed: str) -> Lies:
    """Other headers in the answers to some requests."""
    replaced = {name.replace("_", "-"): value for name, value in changed.items()}

    def lie(asked: Asked, answer: Answer) -> Answer:
        if asked.method != method or not asked.path.startswith(path):
            return answer
        return answer[0], {**answer[1], **replaced}, answer[2]

    return lie


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (headers("PUT", "blobs/", Docker_Content_Digest=f"sha256:{'0' * 64}"), "took sha256:"),
        (headers("PUT", "manifests/", Docker_Content_Digest=f"sha256:{'0' * 64}"), "took manifest sha256:"),
        (headers("PATCH", "blobs/", Range="0-17"), "has '0-17' after byte"),
        (headers("POST", "blobs/", Location=""), "does not say where"),
        (headers("POST", "blobs/", Location="ftp://elsewhere/"), "sends us to ftp:"),
    ],
)
def test_lies_while_pushing(liar: Liar, lie: Lies, says: str) -> None:
    liar.lie = lie
    with pytest.raises(BuildError, match=says):
        target.push(liar.client(part=30_000), WHOLE, [], tag="v1")
    assert not liar.tags
    liar.lie = lambda _, answer: answer
    target.push(liar.client(part=30_000), WHOLE, [], tag="v1")
    assert liar.tags


def test_a_blob_of_another_size_does_not_count_as_there(liar: Liar) -> None:
    liar.client().blob(BLOB)
    liar.blobs[BLOB.descriptor.digest] = DATA[:-1]
    with pytest.raises(BuildError, match="with 99999 bytes in place of 100000"):
        liar.client().blob(BLOB)
    liar.blobs[BLOB.descriptor.digest] = DATA
    assert not liar.client().blob(BLOB)


def test_a_registry_that_refuses_is_quoted(liar: Liar) -> None:
    words = b'{"errors":[{"code":"DENIED","message":"not \\u001b[31m yours"}]}'
    liar.lie = lambda asked, answer: (403, {}, words) if asked.method == "POST" else answer
    with pytest.raises(BuildError, match=r"403 Forbidden: DENIED, not \\x1b\[31m yours; log in as somebody"):
        liar.client().blob(BLOB)


def pushed(liar: Liar) -> str:
    target.push(liar.client(), WHOLE, [], tag="v1")
    return WHOLE.manifest.descriptor.digest


def test_a_manifest_is_what_its_digest_says(liar: Liar) -> None:
    digest = pushed(liar)
    other = oci.encode({"schemaVersion": 2})
    for what in ("v1", digest):
        liar.lie = lambda _, answer: answer
        found = liar.client().resolve(what)
        assert found is not None
        assert found.data == WHOLE.manifest.data
        liar.lie = lambda _, answer: (answer[0], answer[1], other)
        with pytest.raises(BuildError, match=r"gives a manifest sha256:\w+ for sha256:"):
            liar.client().resolve(what)
    liar.lie = lambda _, answer: (answer[0], {"Content-Type": oci.MANIFEST}, b" " * (oci.MANIFEST_MAX + 1))
    with pytest.raises(BuildError, match=f"more than {oci.MANIFEST_MAX} bytes"):
        liar.client().resolve("v1")
    liar.lie = lambda _, answer: answer
    assert liar.client().resolve("v2") is None


def flipped(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (flipped, "sends other bytes"),
        (lambda data: data[:-1], "sends 99999 bytes of sha256:.*, which has 100000 more"),
        (lambda data: data + b"x", "sends 100001 bytes of"),
    ],
)
def test_a_blob_is_what_its_descriptor_says(liar: Liar, change: Callable[[bytes], bytes], says: str) -> None:
    pushed(liar)
    assert liar.client().read(BLOB.descriptor) == DATA
    liar.lie = lambda _, answer: (answer[0], answer[1], change(answer[2]))
    with pytest.raises(BuildError, match=says):
        liar.client().read(BLOB.descriptor)


def test_a_blob_without_a_length_never_has_more_than_its_size(liar: Liar) -> None:
    pushed(liar)

    def lie(more: bytes) -> Lies:
        return lambda _, answer: (200, {"Content-Length": ""}, answer[2] + more)

    liar.lie = lie(b"")
    assert liar.client().read(BLOB.descriptor) == DATA
    liar.lie = lie(b"more")
    with pytest.raises(BuildError, match=r"sends more of sha256:[0-9a-f]{64} than it has"):
        liar.client().read(BLOB.descriptor)
    liar.lie = lambda _, answer: (200, {**answer[1], "Content-Length": str(len(DATA))}, DATA[:500])
    with pytest.raises(Lost):
        list(liar.client().fetch(BLOB.descriptor))


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000, "-1", "x"])
def test_a_length_that_is_no_number_is_none(liar: Liar, length: str) -> None:
    """A digit that is no number, and one that has more digits than Python reads: neither ends more than the request."""
    pushed(liar)
    liar.lie = lambda _, answer: (answer[0], {**answer[1], "Content-Length": length}, answer[2])
    assert liar.client().read(BLOB.descriptor) == DATA
    liar.lie = lambda asked, answer: (
        answer if asked.method != "HEAD" else (200, {**answer[1], "Content-Length": length}, b"")
    )
    assert not liar.client().blob(BLOB), "it is there"
    liar.blobs.clear()
    liar.lie = lambda _, answer: (answer[0], {**answer[1], "OCI-Chunk-Min-Length": length}, answer[2])
    assert liar.client(part=30_000).blob(BLOB)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_blob_goes_on_where_it_was(liar: Liar, ranges: bool) -> None:
    pushed(liar)
    if not ranges:
        liar.lie = lambda _, answer: (200, {}, DATA) if answer[0] == 206 else answer
    assert b"".join(liar.client().fetch(BLOB.descriptor, 60_000)) == DATA[60_000:]


# ── referrers ──


@pytest.mark.parametrize("api", [True, False])
def test_referrers_are_listed(api: bool) -> None:
    server = Liar(api=api)
    try:
        subject = WHOLE.manifest.descriptor
        for text in (b"one", b"two", b"one"):
            target.push(server.client(), WHOLE, [attachment(text)], tag="v1")
        found = server.client().referrers(subject)
        wanted = {attachment(text).whole.manifest.descriptor.digest for text in (b"one", b"two")}
        assert {entry["digest"] for entry in found} == wanted
        assert len(found) == 2
        assert {entry["artifactType"] for entry in found} == {"application/vnd.example.note"}
        assert (oci.referrers_tag(subject) in server.tags) == (not api)
    finally:
        server.close()


def test_a_layout_has_the_same_manifest(tmp_path: Path, liar: Liar) -> None:
    target.push(liar.client(), WHOLE, [attachment(b"note")], tag="v1")
    folder = tmp_path / "layout"
    for _ in range(2):
        target.push(Layout(folder), WHOLE, [attachment(b"note")], tag="v1")
    listed = json.loads((folder / "index.json").read_text())["manifests"]
    assert {entry["digest"] for entry in listed} == {
        name for name in liar.manifests if name != liar.tags[oci.referrers_tag(WHOLE.manifest.descriptor)]
    }
    for path in (folder / "blobs/sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    (found,) = Layout(folder).referrers(WHOLE.manifest.descriptor)
    assert found["digest"] == attachment(b"note").whole.manifest.descriptor.digest


def spoiled(path: Path) -> Content:
    path.write_bytes(DATA)
    content = Content(descriptor=BLOB.descriptor, path=path)
    path.write_bytes(flipped(DATA))
    return content


def test_a_file_that_changes_meanwhile_is_not_published(tmp_path: Path, liar: Liar) -> None:
    content = spoiled(tmp_path / "file")
    with pytest.raises(BuildError, match=r"400 .*DIGEST_INVALID"):
        liar.client().blob(content)
    with pytest.raises(BuildError, match="changed while it was published"):
        Layout(tmp_path / "layout").blob(content)
    (tmp_path / "file").write_bytes(DATA)
    assert liar.client().blob(content)
    assert Layout(tmp_path / "layout").blob(content)
    assert Whole(manifest=WHOLE.manifest, blobs=(content,)).blobs
