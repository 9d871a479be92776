# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit rebuild --watch` on a registry that somebody else may write to: he costs rebuilds, and hides nothing."""

from pathlib import Path

import pytest

from tests.publish.conftest import Service
from tools.pipeline.base import ambient
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.registry import client, oci
from tools.pipeline.registry.oci import Content

DAY = 86_400


def later(service: Service, days: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look after so many days."""
    real = ambient.now
    with monkeypatch.context() as patch:
        patch.setattr(ambient, "now", lambda: real() + days * DAY)
        service.look()


def docker_image() -> tuple[Content, Content]:
    """Its manifest, as docker writes one, and the only blob of it."""
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    blob = oci.of_bytes(b"{}", "application/vnd.docker.container.image.v1+json")
    entry = blob.descriptor.document()
    document = {"schemaVersion": 2, "mediaType": kind, "config": entry, "layers": [entry]}
    return oci.of_bytes(oci.encode(document), kind), blob


def test_an_image_of_docker_is_left_alone(service: Service) -> None:
    """docker-registry answers 400 to whoever does not take its media type."""
    image, blob = docker_image()
    service.registry.blob(blob)
    service.registry.manifest(image, "aaa")
    service.look()
    service.endorsed("v1")


def test_a_tag_that_cannot_be_read_hides_no_other(
    service: Service, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, blob = docker_image()
    service.registry.blob(blob)
    service.registry.manifest(image, "aaa")
    monkeypatch.setattr(client, "_ACCEPT", {"Accept": f"{oci.MANIFEST}, {oci.INDEX}"})
    for _ in range(2):
        with pytest.raises(BuildError, match="not everything"):
            service.look()
    assert "team/thing: aaa: 400" in capfd.readouterr().err
    service.endorsed("v1")
    assert service.log() == ["rebuild", "endorse"]
    service.look(to=f"{service.world.place}:v1")  # one that is named is not asked for the others


def test_an_endorsement_that_is_lost_is_given_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who writes the list of statements at the same time, or deletes them, takes it away for a day at most."""
    service.look()
    subject = service.registry.resolve("v1")
    assert subject is not None
    tag = oci.referrers_tag(subject.descriptor)
    there = service.registry.resolve(tag)
    assert there is not None
    (provenance, _) = oci.parse(there.data)["manifests"]
    service.registry.manifest(oci.of_bytes(oci.index([provenance]), oci.INDEX), tag)
    service.look()
    assert service.log() == ["rebuild", "endorse"]
    later(service, 1.1, monkeypatch)
    service.endorsed("v1")
    assert service.log() == ["rebuild", "endorse"] * 2
    # One that is there is not given again.
    later(service, 2.2, monkeypatch)
    assert service.log() == ["rebuild", "endorse"] * 2


def test_a_false_claim_keeps_no_true_one_from_being_tried(
    service: Service, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """For a while the registry shows a stranger's provenance alone."""
    old = service.head()
    service.commit("v2.txt")
    service.world.publish("v1")
    service.claimed(old)
    (service.folder / f"other-{old}").touch()
    subject = service.registry.resolve("v1")
    assert subject is not None
    tag = oci.referrers_tag(subject.descriptor)
    whole = service.registry.resolve(tag)
    assert whole is not None
    service.registry.manifest(oci.of_bytes(oci.index(oci.parse(whole.data)["manifests"][:1]), oci.INDEX), tag)
    for day in (0, 1.1):
        with pytest.raises(BuildError, match="not everything"):
            later(service, day, monkeypatch)
    assert service.log() == ["rebuild"], "the same commit is not tried twice"
    assert capfd.readouterr().err.count("is kept there until the next") == 2
    service.registry.manifest(whole, tag)
    later(service, 2.2, monkeypatch)
    service.endorsed("v1")


def test_what_strangers_have_sent_does_not_gather(service: Service, tmp_path: Path) -> None:
    (service.folder / "failing").touch()
    with pytest.raises(BuildError, match="not everything"):
        service.look()
    assert service.log() == ["rebuild"]
    assert not list((tmp_path / "state").rglob("*.manifest.json"))


def test_mistakes_in_options_end_it(service: Service) -> None:
    with pytest.raises(UserError, match="--branch: 'misspelt' is no branch of this checkout"):
        service.look(branch="misspelt")
    with pytest.raises(UserError, match=r"--ca .*none\.pem: is not there"):
        service.look(ca="none.pem")
    assert service.log() == []
    service.look(branch="HEAD")
    service.endorsed("v1")
