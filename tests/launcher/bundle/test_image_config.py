# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Users of images, looked up as engines do; accounts across layers."""

import io

import pytest

from tests.launcher.layers.layer_kit import Node, folder, tar_of
from tools.launcher.base.errors import UserError
from tools.launcher.bundle.accounts import Accounts
from tools.launcher.bundle.image_config import Config, resolve
from tools.launcher.layers import layer

PASSWD = b"# comment\nroot:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\nbroken\nodd:x:x:1::/:/\n"
# To Python, not to engines, a line ends at a vertical tab.
PASSWD += b"many:x:5:5:a note\x0bsneaky:x:0:0::/:/bin/sh\n"
GROUP = b"root:x:0:root\napp:x:1001:\naudio:x:29:app\nvideo:x:44:other,app\nwheel:x:10:root\n"


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups", "home"),
    [
        ("", 0, 0, (10,), "/root"),
        ("0", 0, 0, (10,), "/root"),
        ("app", 1000, 1001, (29, 44), "/home/app"),
        ("1000", 1000, 1001, (29, 44), "/home/app"),
        ("app:audio", 1000, 29, (), "/home/app"),
        ("app:7", 1000, 7, (), "/home/app"),
        ("4000", 4000, 0, (), "/"),
        ("4000:4001", 4000, 4001, (), "/"),
        (":audio", 0, 29, (), "/root"),
    ],
)
def test_users_become_numbers(user: str, uid: int, gid: int, groups: tuple[int, ...], home: str) -> None:
    found = resolve(Config(user=user), passwd=PASSWD, group=GROUP, where="image")
    assert (found.uid, found.gid, found.groups) == (uid, gid, groups)
    assert found.env[-1] == f"HOME={home}"
    kept = resolve(Config(user=user, env=("HOME=/x",)), passwd=PASSWD, group=GROUP, where="image")
    assert kept.env == ("HOME=/x",)


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("nobody", "User 'nobody' is not in the image's /etc/passwd"),
        ("sneaky", "User 'sneaky' is not in the image's /etc/passwd"),
        ("app:nobody", "group 'nobody' is not in the image's /etc/group"),
        ("4294967295", "User has the id '4294967295'"),
        ("odd", "User has the id 'x'"),
    ],
)
def test_unknown_users_are_refused(user: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        resolve(Config(user=user), passwd=PASSWD, group=GROUP, where="image")


def test_accounts_are_those_of_the_uppermost_layer() -> None:
    accounts = Accounts()

    def put(etc: Node) -> bytes:
        data = tar_of(folder({b"etc": etc}))
        accounts.settle(layer.of_archive(io.BytesIO(data), size=len(data), where="layer"), where="layer")
        return accounts.passwd

    assert put(folder({b"group": Node(data=b"g")})) == b""
    assert put(folder({b"passwd": Node(data=b"first")})) == b"first"
    assert put(folder({b"other": Node()})) == b"first"
    assert put(folder({b"passwd": Node(data=b"second")})) == b"second"
    assert accounts.group == b"g"
    assert put(folder({b"passwd": Node(kind="whiteout")})) == b""
    assert put(folder({b"passwd": Node(data=b"third")})) == b"third"
    # A link could lead anywhere.
    assert put(folder({b"passwd": Node(kind="symlink", target=b"/etc/other")})) == b""
    assert put(folder({b"passwd": Node(data=b"fourth")})) == b"fourth"
    assert put(folder({}, opaque=True)) == b""
    assert accounts.group == b""
    with pytest.raises(UserError, match="/etc/passwd has 1048577 bytes"):
        put(folder({b"passwd": Node(data=bytes((1 << 20) + 1))}))
