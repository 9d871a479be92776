# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The image that tests run: Debian's static busybox in two layers, as `docker save` writes images."""

import subprocess
from pathlib import Path

from tests.launcher.bundle.image_kit import saved
from tests.launcher.layers.layer_kit import Node, folder, tar_of

NAME = "busybox:test"
ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GREETING=hello world"]
CONFIG = {"Cmd": ["sh"], "Env": ENVIRONMENT}
_TIME = 17 * 10**17  # nanoseconds
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/sh\n"
_GROUP = b"root:x:0:\ntty:x:5:\naudio:x:29:www-data\nwww-data:x:33:\n"


def layers(busybox: Path) -> list[bytes]:
    """Busybox and its applets; then a page for its web server over one that is there, and a file taken away."""
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True).stdout.split()
    program = Node(mode=0o755, data=busybox.read_bytes(), nanoseconds=_TIME)
    links = {name: Node(kind="symlink", target=b"busybox") for name in applets if name != b"busybox"}
    file = Node(data=b"lower\n", nanoseconds=_TIME)
    base = folder(
        {
            b"bin": folder({b"busybox": program, **links}),
            b"etc": folder({b"passwd": Node(data=_PASSWD), b"group": Node(data=_GROUP), b"gone": file}),
            b"dev": folder({}), b"proc": folder({}), b"sys": folder({}), b"run": folder({}),
            b"root": folder({}, mode=0o700), b"tmp": folder({}, mode=0o1777),
            b"var": folder({b"www": folder({b"index.html": file}), b"empty": folder({})}),
        }
    )  # fmt: skip
    page = Node(data=b"a page of the image\n", nanoseconds=_TIME)
    upper = folder(
        {b"etc": folder({b"gone": Node(kind="whiteout")}), b"var": folder({b"www": folder({b"index.html": page})})}
    )
    return [tar_of(base), tar_of(upper)]


def archive(path: Path, busybox: Path) -> Path:
    """Write the image's archive."""
    return saved(path, layers(busybox), tag=NAME, config=CONFIG)
