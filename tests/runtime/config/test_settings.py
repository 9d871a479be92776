# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""sev-runtime.toml and annotations: what they say, what is refused, and the example that is shipped."""

import re
from pathlib import Path

import pytest

from tools.launcher.base.errors import UserError
from tools.launcher.guest.spec import Accel
from tools.launcher.oci import settings as oci
from tools.runtime.config import settings
from tools.runtime.config.annotations import PREFIX, applied
from tools.runtime.config.settings import Protection, Settings
from tools.sev.modes import Mode

EXAMPLE = "recipes/sev-runtime.toml.example"


def load(folder: Path, text: str) -> Settings:
    path = folder / "sev-runtime.toml"
    path.write_text("schema = 1\n" + text)
    return settings.load(str(path))


def test_what_is_not_said_is_protected_and_closed(tmp_path: Path) -> None:
    found = load(tmp_path, "")
    assert found.encrypted
    assert found.protection is Protection.PROTECTED
    assert found.translation() == oci.Settings()
    assert found.translation().openness is oci.Openness.CLOSED
    assert not found.annotations


@pytest.mark.parametrize(
    ("protection", "encrypted", "openness"),
    [("protected", True, "closed"), ("enforce", False, "closed"), ("unprotected", False, "open")],
)
def test_protection(tmp_path: Path, *, protection: str, encrypted: bool, openness: str) -> None:
    found = load(tmp_path, f'protection = "{protection}"\n')
    assert (found.encrypted, found.translation().openness) == (encrypted, openness)


def test_every_key(tmp_path: Path) -> None:
    text = """
        memory = "1G"
        vcpus = 3
        memory-overhead = "300M"
        cache = "cache"
        run = "/run/other"
        artifacts = "a/runtime.toml"
        network-artifacts = "n.toml"
        mkfs = "m"
        qemu = "/q"
        mode = "sev-es"
        accel = "kvm"
        timeout = 7
        folder-size = "2M"
        writable = ["/srv"]
        reports = "socket"
        host-reports = true
        end-on-refusal = true
        annotations = ["exec"]
        [[exec]]
        command = ["/bin/true", "x"]
        count = 2
        stdin = true
        terminal = true
    """
    found = load(tmp_path, text)
    assert (found.artifacts, found.network_artifacts) == (tmp_path / "a/runtime.toml", tmp_path / "n.toml")
    assert (found.cache, found.run, found.mkfs, found.qemu) == (
        tmp_path / "cache",
        Path("/run/other"),
        tmp_path / "m",
        "/q",
    )
    assert (found.mode, found.accel, found.timeout, found.overhead_mib) == (Mode.SEV_ES, Accel.KVM, 7, 300)
    assert found.container == oci.Settings(
        exec=(oci.Command(argv=("/bin/true", "x"), count=2, stdin=True, terminal=True),),
        reports="socket",
        host_reports=True,
        end_on_refusal=True,
        writable=("/srv",),
        memory_mib=1024,
        vcpus=3,
        folder_bytes=2 << 20,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("schema = 2", "is not TOML"),
        ('protection = "none"', "protection: 'none' is not one of"),
        ('memory = "1T"', "memory"),
        ('memory-overhead = "0M"', "memory-overhead"),
        ('annotations = ["fly"]', "annotations: 'fly' is none of"),
        ("flies = 1", "flies: unknown key"),
        ("[[exec]]\ncommand = []", "exec[0].command"),
        ("[[exec]]\ncommand = ['a']\nfly = 1", "exec[0].fly: unknown key"),
    ],
)
def test_what_is_refused_names_the_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as info:
        load(tmp_path, text)
    assert words in str(info.value)


def test_the_example_says_what_holds_without_it(repository: Path, tmp_path: Path) -> None:
    text = (repository / EXAMPLE).read_text()
    path = tmp_path / "sev-runtime.toml"
    path.write_text(text)
    found, bare = settings.load(str(path)), load(tmp_path, "")
    assert found == bare
    # What stands there as a comment is a key, too.
    path.write_text(re.sub(r"^# (?=[a-z-]+ = |\[\[exec)", "", text, flags=re.MULTILINE))
    assert settings.load(str(path)).container.exec


def test_annotations_change_what_the_configuration_lets_them(tmp_path: Path) -> None:
    names = ", ".join(f'"{name}"' for name in settings.ALLOWED)
    found = load(tmp_path, f"annotations = [{names}]\n[[exec]]\ncommand = ['/a']\n")
    given = {
        "exec": '[["/b", "c"]]', "protection": "enforce", "reports": "socket", "host-reports": "true",
        "end-on-refusal": "true", "timeout": "9",
    }  # fmt: skip
    changed = applied(found, {PREFIX + name: text for name, text in given.items()} | {"io.other": "x"})
    assert [command.argv for command in changed.container.exec] == [("/a",), ("/b", "c")]
    assert (changed.protection, changed.timeout) == (Protection.ENFORCE, 9)
    assert (changed.container.reports, changed.container.host_reports, changed.container.end_on_refusal) == (
        "socket", True, True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text"),
    [("exec", "no"), ("exec", "[[]]"), ("exec", '[["a\\u0000"]]'), ("protection", "none"), ("timeout", "0"),
     ("timeout", "x"), ("host-reports", "yes"), ("reports", "all")],
)  # fmt: skip
def test_annotations_that_say_nonsense(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(UserError, match=re.escape(PREFIX + name)):
        applied(load(tmp_path, f'annotations = ["{name}"]\n'), {PREFIX + name: text})


def test_annotations_that_are_not_allowed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not allow this annotation"):
        applied(load(tmp_path, 'annotations = ["timeout"]\n'), {f"{PREFIX}exec": "[]"})
    with pytest.raises(UserError, match="no annotation of ours"):
        applied(load(tmp_path, ""), {f"{PREFIX}fly": "1"})


@pytest.mark.parametrize("word", ["a\\u0000b", "\\ud800"])
def test_a_command_in_an_annotation_is_text(word: str) -> None:
    allowed = Settings(
        path=None, artifacts=Path("a"), network_artifacts=Path("n"), mkfs=Path("m"), annotations=("exec",)
    )
    with pytest.raises(UserError, match="a JSON list of commands"):
        applied(allowed, {f"{PREFIX}exec": f'[["{word}"]]'})
    assert applied(allowed, {f"{PREFIX}exec": '[["\\u00e4"]]'}).container.exec[0].argv == ("ä",)
