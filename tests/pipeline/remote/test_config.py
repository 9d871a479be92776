# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""remote.toml and SEV_ARTIFACTS_REMOTE: what is read, and one clear line for each mistake."""

from pathlib import Path

import pytest

from tests.publish import kit
from tools.pipeline.base import ambient
from tools.pipeline.base.errors import SevArtifactsError, UserError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.origin import How, Origin
from tools.pipeline.registry import reference
from tools.pipeline.remote import choose, config
from tools.pipeline.sign import keys
from tools.pipeline.tasks.project import Project

GOOD = '[builders.ci]\nkey = "ci.pub"\n'


@pytest.fixture
def folder(people: Path, tmp_path: Path) -> Path:
    for path in people.iterdir():
        (tmp_path / path.name).touch(0o600)
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def written(folder: Path, text: str, mode: int = 0o644) -> Path:
    path = folder / "remote.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_what_is_read(folder: Path) -> None:
    text = f'{GOOD}[builders.alice]\nkey = "alice.pub"\n[push]\nkey = "alice.key"\n[registry]\nca = "ca.pem"\n'
    found = config.load(written(folder, text))
    assert {one.name for one in found.builders.values()} == {"ci", "alice"}
    assert (found.push, found.ca) == ("alice.key", folder / "ca.pem")
    fingerprint = keys.fingerprint(keys.load_public(folder / "ci.pub"))
    assert found.name(fingerprint) == "ci"
    assert found.believes(Origin(how=How.CACHE, place="anywhere", builder=fingerprint))
    assert not found.believes(Origin(how=How.CACHE, place="anywhere", builder="somebody"))
    assert not found.believes(Origin(how=How.CACHE, place="anywhere", builder=""))


BAD = {
    "": "lists no builder and no key",
    "x": "is not TOML",
    "[builders]\n": "lists no builder and no key",
    '[builders.ci]\nkey = "none.pub"\n': "none.pub: cannot be read: No such file",
    '[builders.ci]\nkey = "ci.key"\n': "ci.key: holds no public key in PEM",
    '[builders.ci]\nkey = "remote.toml"\n': "holds no public key in PEM",
    "[builders.ci]\n": "builders.ci.key: missing",
    '[builders.ci]\nkey = "ci.pub"\nkeys = 1\n': "builders.ci.keys: unknown key",
    '[builders."a b"]\nkey = "ci.pub"\n': "is no name of a builder",
    'builders = "ci"\n': "builders: must be a table",
    f"{GOOD}[pull]\n": "pull: unknown key",
    f'{GOOD}[builders.twin]\nkey = "ci.pub"\n': "builders.twin: has the key of ci; each builder has his own",
    f'{GOOD}[service]\nplatform = ["a=1", "b=1", "a=2"]\n': "service.platform: names a property twice",
    f"{GOOD}[push]\n": "push.key: missing",
    f"{GOOD}[registry]\nca = 1\n": "registry.ca: must be a string",
}


@pytest.mark.parametrize("text", BAD)
def test_mistakes(folder: Path, text: str) -> None:
    with pytest.raises(UserError) as caught:
        config.load(written(folder, text))
    assert BAD[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_that_others_can_write_to(folder: Path) -> None:
    for mode in (0o664, 0o646):
        with pytest.raises(UserError, match="others can write to it"):
            config.load(written(folder, GOOD, mode))
    assert config.load(written(folder, GOOD)).builders
    with pytest.raises(UserError, match="cannot be read: No such file"):
        config.load(folder / "none.toml")


@pytest.mark.parametrize("name", ["ci.pub", "registry.pem", "service.pem"])
def test_what_it_names_is_nobody_elses_to_write_either(folder: Path, name: str) -> None:
    """Who can put another key in its place is listed himself."""
    text = f'{GOOD}[registry]\nca = "registry.pem"\n[service]\nca = "service.pem"\n'
    path = written(folder, text)
    for one in ("registry.pem", "service.pem"):
        (folder / one).touch(0o600)
    assert config.load(path, service=True).builders
    for mode in (0o664, 0o646):
        (folder / name).chmod(mode)
        with pytest.raises(UserError, match=rf"{name}: others can write to it"):
            config.load(path, service=True)


def test_who_believes_an_action_cache_says_so(folder: Path) -> None:
    assert not config.load(written(folder, f"{GOOD}[service]\n")).cached
    for word, believed in (("ignored", False), ("believed", True)):
        assert config.load(written(folder, f'{GOOD}[service]\naction-cache = "{word}"\n')).cached == believed
    with pytest.raises(UserError, match=r"service\.action-cache: 'yes' is not believed or ignored"):
        config.load(written(folder, f'{GOOD}[service]\naction-cache = "yes"\n'))


def test_execution_without_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgotten, the other variable would be missed only when everything had run here."""
    monkeypatch.delenv(ambient.REMOTE, raising=False)
    assert Project.load().remote is None
    monkeypatch.setenv(ambient.REMOTE_EXECUTE, "1")
    with pytest.raises(UserError, match="REMOTE_EXECUTE: says where steps run, and SEV_ARTIFACTS_REMOTE "):
        _ = Project.load().remote


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEV_ARTIFACTS_REMOTE_CONFIG", "/here/r.toml")
    assert ambient.remote_config() == Path("/here/r.toml")
    monkeypatch.setenv("SEV_ARTIFACTS_REMOTE_CONFIG", "r.toml")
    with pytest.raises(UserError, match="is not an absolute path"):
        ambient.remote_config()
    monkeypatch.delenv("SEV_ARTIFACTS_REMOTE_CONFIG")
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert ambient.remote_config() == Path("/home/me/.config/sev-artifacts/remote.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/config")
    assert ambient.remote_config() == Path("/config/sev-artifacts/remote.toml")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.delenv("HOME")
    with pytest.raises(UserError, match=r"there is no remote\.toml"):
        ambient.remote_config()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nowhere", "names no registry's host"),
        ("ftp://registry.example/team/cache", "ftp:// is not known"),
        ("registry.example/team/cache:v1", "has a tag or a digest"),
        ("http://registry.example/TEAM", "is no name of a repository"),
        ("http://", "names no registry's host"),
        ("registry.example:99999/team/cache", "99999 is no port"),
        ("-", r"expected HOST\[:PORT\]/NAME, for example registry.example/team/cache$"),
    ],
)
def test_places(folder: Path, text: str, says: str) -> None:
    path = written(folder, GOOD)
    with pytest.raises(UserError, match=says):
        choose.remote(text, cas=Cas(root=folder / "cache"), folder=folder, path=path)
    for good in ("registry.example/team/cache", "https://registry.example/team/cache"):
        choose.remote(good, cas=Cas(root=folder / "cache"), folder=folder, path=path)


@pytest.mark.parametrize(
    "place",
    [
        "me:s3cret@registry.example/team/cache",
        "me:s3/cret@registry.example/team/cache",
        "me:s3cret@registry.example",
        f"me:s3cret@registry.example/team/cache@sha256:{'0' * 64}",
    ],
)
def test_a_password_in_a_place_is_not_repeated(place: str) -> None:
    for text in (place, f"https://{place}", f"http://{place}"):
        with pytest.raises(UserError, match="has a user or a password in it") as caught:
            choose.remote(text, cas=Cas(root=Path("/nonexistent")), folder=Path("/nonexistent"))
        assert "cret" not in str(caught.value)
    # A digest has an @, too.
    good = reference.parse(f"registry.example/team/cache@sha256:{'0' * 64}", where="--to")
    assert good.digest


@pytest.mark.parametrize(
    ("table", "place"), [("registry", "registry.example/cache"), ("service", "grpcs://host.example:1")]
)
def test_authorities_that_are_none(folder: Path, table: str, place: str) -> None:
    path = written(folder, f'{GOOD}[{table}]\nca = "ca.pem"\n')
    authorities = folder / "ca.pem"

    def chosen() -> object:
        return choose.remote(place, cas=Cas(root=folder / "cache"), folder=folder, path=path)

    with pytest.raises(UserError, match=rf"\[{table}\] ca = .*ca\.pem: is not there; name a PEM file"):
        chosen()
    authorities.write_bytes((folder / "ci.pub").read_bytes())
    with pytest.raises(UserError, match=rf"\[{table}\] ca = .*ca\.pem: holds no certificates in PEM"):
        chosen()
    kit.certificates(folder)
    authorities.write_bytes((folder / "ca.crt").read_bytes())
    assert chosen()


@pytest.mark.parametrize(
    ("table", "place", "plain"),
    [
        ("registry", "registry.example/cache", "http://registry.example/cache"),
        ("service", "grpcs://host.example:1", "grpc://host.example:1"),
    ],
)
def test_authorities_that_would_not_be_asked(folder: Path, table: str, place: str, plain: str) -> None:
    kit.certificates(folder)
    path = written(folder, f'{GOOD}[{table}]\nca = "ca.crt"\n')
    assert choose.remote(place, cas=Cas(root=folder / "cache"), folder=folder, path=path)
    with pytest.raises(UserError, match=rf"remote\.toml: {table}\.ca: .*, without TLS: no authority would be asked"):
        choose.remote(plain, cas=Cas(root=folder / "cache"), folder=folder, path=path)
    assert choose.remote(plain, cas=Cas(root=folder / "cache"), folder=folder, path=written(folder, GOOD))


def test_a_key_file_that_cannot_sign_is_found_out_at_once(folder: Path) -> None:
    def chosen(key: str) -> object:
        path = written(folder, f'{GOOD}[push]\nkey = "{key}"\n')
        return choose.remote("registry.example/cache", cas=Cas(root=folder / "cache"), folder=folder, path=path)

    assert chosen("ci.key")
    (folder / "other.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (folder / "other.pem").chmod(0o600)
    for key, says in {
        "none.key": "none.key: is not there; make one with openssl genpkey",
        "other.pem": "other.pem: holds no private key in PEM; make one with",
        "ci.pub": "ci.pub: is a public key; name the private one",
        "pkcs11:token=x": "remote.toml: push.key: the URI must have exactly token, object, module-path and pin-source",
    }.items():
        with pytest.raises(UserError, match=says):
            chosen(key)
    # Readable by all, as public keys are: no reason to speak of its mode.
    (folder / "ci.pub").chmod(0o644)
    with pytest.raises(UserError, match="is a public key"):
        chosen("ci.pub")
    (folder / "ci.key").chmod(0o644)
    with pytest.raises(UserError, match="others can read or write it"):
        chosen("ci.key")


def test_a_token_is_asked_when_something_is_signed(folder: Path) -> None:
    """And what it says names the file, not an option that nobody gave."""
    (folder / "pin").touch(0o600)
    (folder / "pin").write_text("1234")
    uri = f"pkcs11:token=x;object=y?module-path={folder}/none.so&pin-source=pin"
    path = written(folder, f'{GOOD}[push]\nkey = "{uri}"\n')
    signer = choose.signer(config.load(path))
    assert signer is not None
    with pytest.raises(SevArtifactsError, match=rf"{path}: push\.key"):
        signer()
