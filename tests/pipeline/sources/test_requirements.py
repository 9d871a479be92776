# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Python requirements: pip's own answer decides whether anything has to be resolved."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.pipeline.sources.loopback import Reply, Site
from tests.pipeline.sources.test_pypi import index, wheel
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.sources import requirements

__all__ = ["index"]


def offer(site: Site, *versions: str) -> dict[str, str]:
    """Put these versions of the wheel on the index; their digests."""
    files = {f"tiny_thing-{version}-py3-none-any.whl": wheel(version, needs="") for version in versions}
    links = "".join(f'<a href="/files/{name}">{name}</a>' for name in files)
    site.replies["/simple/tiny-thing/"] = [Reply(body=links.encode(), headers={"Content-Type": "text/html"})]
    for name, data in files.items():
        site.replies[f"/files/{name}"] = [Reply(body=data)]
    return {version: hashlib.sha256(data).hexdigest() for version, data in zip(versions, files.values(), strict=True)}


def locked(root: Path, version: str, digest: str, *, name: str = "requirements", asked: str = "Tiny_Thing\n") -> Path:
    """A lock as ./doit lock has written it, but for another request than is there now."""
    request = root / f"{name}.in"
    request.write_text("something-else\n")
    path = root / f"{name}.lock"
    path.write_text(requirements.render(request, f"tiny-thing=={version} \\\n    --hash=sha256:{digest}\n"))
    request.write_text(asked)
    return path


def lock(root: Path, *, upgrade: bool = False) -> list[str]:
    """As a person who consents to nothing."""

    def refuse(lines: Sequence[str]) -> None:
        raise UserError(f"older: {', '.join(lines)}")

    return requirements.resolve(root=root, upgrade=upgrade).write(refuse)


def test_nothing_changed_asks_nobody(index: Site, tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    digests = offer(index, "1.0")
    path = locked(root, "1.0", digests["1.0"])
    assert lock(root) == []  # pip itself says that it is current; now the lock says for what
    before = path.read_text()
    assert before.endswith(f"tiny-thing==1.0 \\\n    --hash=sha256:{digests['1.0']}\n")
    assert not any("pip-tools" in request.path for request in index.requests)
    index.requests.clear()
    offer(index, "1.0", "1.1")
    asked = root / "requirements.in"
    asked.write_text(f"# a comment\n\n{asked.read_text()}")
    assert lock(root) == []
    assert (path.read_text(), index.requests) == (before, [])
    # A newer version is looked for when somebody wants it, and a changed request is resolved.
    with pytest.raises(BuildError, match="pip-tools"):
        lock(root, upgrade=True)
    asked.write_text("tiny-thing>1.0\n")
    with pytest.raises(BuildError, match="pip-tools"):
        lock(root)
    assert path.read_text() == before


def test_a_changed_constraint_is_a_changed_request(index: Site, tmp_path: Path) -> None:
    digest = offer(index, "1.0", "1.1")["1.1"]
    locked(tmp_path, "1.1", digest)
    locked(tmp_path, "1.1", digest, name="requirements-dev", asked="-c requirements.lock\ntiny-thing\n")
    lock(tmp_path)
    index.requests.clear()
    lock(tmp_path)
    assert index.requests == []
    path = tmp_path / "requirements.lock"
    path.write_text(requirements.render(tmp_path / "requirements.in", path.read_text().replace("==1.1", "==1.0")))
    with pytest.raises(BuildError, match=r"^requirements-dev\.in: pip install: .*pip-tools"):
        lock(tmp_path)


@pytest.mark.parametrize(("version", "digest_of"), [("1.0", "1.0"), ("1.1", "1.0")])
def test_a_newer_version_or_another_file_is_resolved(index: Site, tmp_path: Path, version: str, digest_of: str) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    path = locked(root, version, offer(index, "1.0", "1.1")[digest_of])
    before = path.read_text()
    # This index has no pip-tools, so here it ends: in one line, and with the lock as it was.
    with pytest.raises(BuildError, match=r"^requirements\.in: pip install: .*pip-tools") as caught:
        lock(root)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert path.read_text() == before


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What pip-compile is to answer, and then what it was given. The tool itself is not on the tests' index."""
    answer: list[str] = []

    def stand_in(asked: Path, before: str, *, upgrade: bool) -> str:
        answer.append(before)
        return answer[0]

    monkeypatch.setattr(requirements, "_compile", stand_in)
    return answer


def test_an_index_that_holds_back_what_is_newer_needs_consent(index: Site, tmp_path: Path, compiled: list[str]) -> None:
    path = locked(tmp_path, "1.10", "a" * 64)
    digest = offer(index, "1.9")["1.9"]
    compiled.append(f"tiny-thing==1.9 \\\n    --hash=sha256:{digest}\n")
    before = path.read_text()
    with pytest.raises(UserError, match=r"^older: tiny-thing 1\.10 → 1\.9 \(requirements\.in\)$"):
        lock(tmp_path, upgrade=True)
    assert path.read_text() == before
    seen: list[str] = []
    assert requirements.resolve(root=tmp_path, upgrade=True).write(seen.extend) == ["updated  tiny-thing 1.10 → 1.9"]
    assert len(seen) == 1
    assert "==1.9 " in path.read_text()
    # A newer one needs no consent, and nor does an older one that a person has asked for.
    offer(index, "1.9", "1.10")
    compiled[0] = compiled[0].replace("==1.9", "==1.10")
    assert lock(tmp_path, upgrade=True) == ["updated  tiny-thing 1.9 → 1.10"]
    (tmp_path / "requirements.in").write_text("tiny-thing==1.9\n")
    compiled[0] = compiled[0].replace("==1.10", "==1.9")
    assert lock(tmp_path) == ["updated  tiny-thing 1.10 → 1.9"]


@pytest.mark.parametrize("keep", [True, False])
def test_a_hash_that_somebody_wrote_does_not_stay(index: Site, tmp_path: Path, compiled: list[str], keep: bool) -> None:
    """Another one, or one more, under a request that is the same."""
    digest = offer(index, "1.0")["1.0"]
    path = locked(tmp_path, "1.0", digest)
    assert lock(tmp_path) == []
    good = path.read_text()
    own = f"--hash=sha256:{digest}"
    path.write_text(
        good.replace(own, f"{own} \\\n    --hash=sha256:{'b' * 64}" if keep else f"--hash=sha256:{'b' * 64}")
    )
    compiled.append(good)
    assert lock(tmp_path) == ["updated  tiny-thing 1.0: OTHER HASHES"]
    assert path.read_text() == good
    assert compiled[1:] == ["tiny-thing==1.0\n"]  # pip-compile would keep the hashes that it is given
    assert lock(tmp_path) == []


def test_the_committed_locks_are_as_written() -> None:
    root = Path(__file__).resolve().parents[3]
    assert requirements.resolve(root=root) == requirements.Resolved(locks={}, changes=[], older=[])
