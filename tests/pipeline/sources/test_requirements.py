# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Python requirements: pip's own answer decides whether anything has to be resolved."""

import hashlib
from pathlib import Path

import pytest

from tests.pipeline.sources.loopback import Reply, Site
from tests.pipeline.sources.test_pypi import index, wheel
from tools.pipeline.base.errors import BuildError
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


def locked(root: Path, version: str, digest: str) -> Path:
    (root / "requirements.in").write_text("Tiny_Thing\n")
    path = root / "requirements.lock"
    path.write_text(f"tiny-thing=={version} \\\n    --hash=sha256:{digest}\n")
    return path


def test_nothing_changed_asks_nobody(index: Site, tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    digests = offer(index, "1.0")
    lock = locked(root, "1.0", digests["1.0"])
    assert requirements.lock(root=root) == []  # pip itself says that it is current; now the lock says for what
    before = lock.read_text()
    assert before.endswith(f"tiny-thing==1.0 \\\n    --hash=sha256:{digests['1.0']}\n")
    assert not any("pip-tools" in request.path for request in index.requests)
    index.requests.clear()
    offer(index, "1.0", "1.1")
    asked = root / "requirements.in"
    asked.write_text(f"# a comment\n\n{asked.read_text()}")
    assert requirements.lock(root=root) == []
    assert (lock.read_text(), index.requests) == (before, [])
    # A newer version is looked for when somebody wants it, and a changed request is resolved.
    with pytest.raises(BuildError, match="pip-tools"):
        requirements.lock(root=root, upgrade=True)
    asked.write_text("tiny-thing>1.0\n")
    with pytest.raises(BuildError, match="pip-tools"):
        requirements.lock(root=root)
    assert lock.read_text() == before


def test_a_changed_constraint_is_a_changed_request(index: Site, tmp_path: Path) -> None:
    digest = offer(index, "1.0", "1.1")["1.1"]
    locked(tmp_path, "1.1", digest)
    (tmp_path / "requirements-dev.in").write_text("-c requirements.lock\ntiny-thing\n")
    (tmp_path / "requirements-dev.lock").write_text(f"tiny-thing==1.1 \\\n    --hash=sha256:{digest}\n")
    requirements.lock(root=tmp_path)
    index.requests.clear()
    requirements.lock(root=tmp_path)
    assert index.requests == []
    path = tmp_path / "requirements.lock"
    path.write_text(path.read_text().replace("==1.1", "==1.0"))
    with pytest.raises(BuildError, match=r"^requirements-dev\.in: pip install: .*pip-tools"):
        requirements.lock(root=tmp_path)


@pytest.mark.parametrize(("version", "digest_of"), [("1.0", "1.0"), ("1.1", "1.0")])
def test_a_newer_version_or_another_file_is_resolved(index: Site, tmp_path: Path, version: str, digest_of: str) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    lock = locked(root, version, offer(index, "1.0", "1.1")[digest_of])
    before = lock.read_text()
    # This index has no pip-tools, so here it ends: in one line, and with the lock as it was.
    with pytest.raises(BuildError, match=r"^requirements\.in: pip install: .*pip-tools") as caught:
        requirements.lock(root=root)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert lock.read_text() == before
