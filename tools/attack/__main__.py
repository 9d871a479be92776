# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m tools.attack`, from the checkout's root; `./doit attack` makes what it needs first."""

import sys

from tools.attack.front.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
