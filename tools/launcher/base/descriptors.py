# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Standard descriptors that the caller closed: something else must not be opened in their place."""

import os


def fill() -> None:
    """Open /dev/null for each of fds 0, 1 and 2 that is missing; call it before anything is opened.

    A missing fd 1 can only be read from afterwards: what is written there is an error and not lost in silence.
    What the launcher says on a missing fd 2 is not wanted, so there it vanishes.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is this one. The flags make it inheritable, as standard streams are.
            os.set_inheritable(os.open(os.devnull, os.O_WRONLY if descriptor == 2 else os.O_RDONLY), True)
