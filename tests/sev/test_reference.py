# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Places in registries: what is none, and what is not repeated."""

import pytest

from tools.launcher.base.errors import UserError
from tools.launcher.pull import reference as of_pull
from tools.sev.errors import FormatError
from tools.sev.registry.reference import Reference, is_host, parse

DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    "place",
    [
        "me:s3cret@registry.example/team/app:v1",
        "me:s3/cret@registry.example/team/app:v1",
        "https://me:s3cret@registry.example/team/app:v1",
        "me:s3cret@registry.example",
        f"me:s3cret@registry.example/team/app@{DIGEST}",
    ],
)
def test_a_password_is_not_repeated(place: str) -> None:
    with pytest.raises(FormatError, match="has a user or a password in it; docker login HOST") as caught:
        parse(place, form="form")
    assert "cret" not in str(caught.value)
    with pytest.raises(UserError, match=r"^REF: has a user or a password in it") as refused:
        of_pull.parse(place)
    assert "cret" not in str(refused.value)


def test_what_has_none() -> None:
    """A digest has an @, too; so has one that no host stands before."""
    assert parse(f"registry.example/team/app:v1@{DIGEST}", form="form") == Reference(
        host="registry.example", name="team/app", tag="v1", digest=DIGEST
    )
    assert of_pull.parse(f"registry.example/team/app@{DIGEST}").digest == DIGEST
    for text, says in {
        f"app@{DIGEST}": "names no registry's host; form",
        "registry.example/app@sha256:0": "'sha256:0' is no digest",
        "registry.example:0/app": "0 is no port; a port is in 1",
        "[::1]:65536/app": "65536 is no port",
        "registry.example/APP": "'APP' is no name of a repository; form",
    }.items():
        with pytest.raises(FormatError, match=says):
            parse(text, form="form")


def test_hosts() -> None:
    for good in ("registry.example", "localhost", "127.0.0.1:65535", "[::1]:1"):
        assert is_host(good), good
        assert parse(f"{good}/app:v1", form="form").host == good
    for bad in ("registry", "registry.example:", "registry.example:0", "registry.example:65536", "[::1", "a/b", ""):
        assert not is_host(bad), bad
