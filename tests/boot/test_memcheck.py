# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch memcheck` on a real guest. Nothing encrypts it here, so its memory must be plaintext."""

import json
import subprocess
from typing import Any

from tools.attack.guests.run import Guest

MASKED = "gur-znexre-bs-guvf-thrfg-nybar"
MARKER = "the-marker-of-this-guest-alone"
SCRIPT = "marker=$(echo $MASKED | busybox tr a-z n-za-m); unset MASKED; echo up; read -r wait; echo ${#marker}"


def test_an_unprotected_guest_is_plaintext(guest: Guest) -> None:
    """The marker is made in the guest; one that it never made is not found, and that counts for nothing."""
    argv = guest.argv(["sh", "-c", SCRIPT], "--env", f"MASKED={MASKED}", "--open", "stdin")
    pipe = subprocess.PIPE

    def memcheck(marker: str, *words: str) -> tuple[int, dict[str, Any]]:
        command = [str(guest.launcher), "memcheck", "--json", "--pid", str(process.pid), "--marker", marker, *words]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n", process.communicate()
        status, found = memcheck(MARKER)
        assert (status, found["verdict"]) == (1, "plaintext"), found["why"]
        assert found["memory"]["bytes"] == 512 << 20
        (shown,) = [page for page in found["shown"] if page["what"] == "guest's memory, the marker"]
        assert MARKER.encode() in bytes.fromhex(shown["page"])
        # Both controls: QEMU's command line in its heap, and the kernel's, which the host gave, in the guest.
        assert found["heap_control"]
        assert found["guest_controls"][-1]
        status, found = memcheck(MARKER[::-1])
        assert (status, found["verdict"]) == (1, "inconclusive"), found["why"]
        assert "the kernel's own banner can be read" in found["why"]
        # What crossed a channel is found, encrypted or not.
        status, found = memcheck(MARKER[::-1], "--control", MASKED)
        assert found["guest_controls"][0]
        out, err = process.communicate(b"\n")
    assert (out, process.returncode) == (b"%d\n" % len(MARKER), 0), err
