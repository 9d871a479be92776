# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The older suite gives what toolchain.toml names and nothing else: the real apt, on an archive of two suites.

Nobody has signed it, so here apt is told to trust it; that is all that differs from a run of `./doit lock`.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError
from tools.pipeline.sources import apt, mirrors
from tools.pipeline.sources.apt import Apt
from tools.pipeline.sources.wanted import Architecture, Older

# Suite → package → version and what it depends on.
INDEX = {
    "trixie": {
        "both": ("2", ""),
        "chooses": ("1", "legacy | modern"),
        "modern": ("1", ""),
        "needs-named": ("1", "named"),
    },
    "bookworm": {
        "both": ("1", ""),
        "legacy": ("1", ""),
        "named": ("1", "both"),
        "named-too": ("1", "legacy"),
    },
}


def stanza(name: str, version: str, depends: str) -> str:
    text = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody\n"
    text += f"Depends: {depends}\n" if depends else ""
    path = f"pool/main/{name}_{version}_amd64.deb"
    return f"{text}Filename: {path}\nSize: 1\nSHA256: {hashlib.sha256(path.encode()).hexdigest()}\n\n"


class Trusting(Apt):
    """apt that takes an index without a signature."""

    def _sources(self) -> str:
        return super()._sources().replace("[", "[trusted=yes ")


def publish(folder: Path, suite: str, codename: str, text: str) -> None:
    """One part of an archive, as apt looks for it."""
    files = {"main/binary-amd64/Packages": text, "main/source/Sources": ""}
    sums = ""
    for name, content in files.items():
        path = folder / "dists" / codename / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
        sums += f" {hashlib.sha256(content.encode()).hexdigest()} {len(content)} {name}\n"
    head = f"Suite: {suite}\nCodename: {codename}\nArchitectures: amd64\nComponents: main\n"
    date = "Date: Thu, 01 Jan 2026 00:00:00 UTC\n"
    (folder / "dists" / codename / "Release").write_text(f"{head}{date}SHA256:\n{sums}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Apt:
    """apt with both suites' indexes."""
    folder = tmp_path_factory.mktemp("archive")
    for suite, packages in INDEX.items():
        alias = {"trixie": "stable", "bookworm": "oldstable"}[suite]
        text = "".join(stanza(name, *rest) for name, rest in packages.items())
        publish(folder / "debian", alias, suite, text)
        publish(folder / "debian", f"{alias}-updates", f"{suite}-updates", "")
        publish(folder / "debian-security", f"{alias}-security", f"{suite}-security", "")
    places = [(folder / name).as_uri() for name in ("debian", "debian-security")]
    result = Trusting(
        folder=folder / "apt",
        suite="trixie",
        older=Older(suite="bookworm", packages=("named", "named-too")),
        architecture=Architecture.AMD64,
        mirrors=mirrors.from_setting(places),
    )
    keyring = folder / "keyring.gpg"
    keyring.write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apt, "KEYRINGS", (keyring,))
        result.update()
    return result


def files(made: Apt, *packages: str, avoid: Sequence[tuple[str, str]] = ()) -> list[str]:
    return sorted(found.file.removesuffix("_amd64.deb") for found in made.closure(packages, avoid=avoid))


def test_what_is_named_comes_from_there(made: Apt) -> None:
    """And what it depends on from the suite."""
    assert files(made, "named") == ["both_2", "named_1"]
    assert files(made, "needs-named") == ["both_2", "named_1", "needs-named_1"]


def test_an_alternative_of_the_older_suite_is_not_taken(made: Apt) -> None:
    assert files(made, "chooses") == ["chooses_1", "modern_1"]


def test_a_file_that_is_withheld_is_not_replaced_by_the_older_suites(made: Apt) -> None:
    assert files(made, "both") == ["both_2"]
    with pytest.raises(BuildError, match="apt-get both failed"):
        files(made, "both", avoid=[("both", "2")])


@pytest.mark.parametrize("package", ["legacy", "named-too"])
def test_what_is_not_named_cannot_be_had(made: Apt, package: str) -> None:
    with pytest.raises(BuildError, match=f"apt-get {package} failed"):
        files(made, package)
