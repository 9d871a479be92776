# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m tools.launcher`."""

import sys

from .cli import main

sys.exit(main())
