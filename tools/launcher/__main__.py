# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m tools.launcher`."""

import sys

from tools.launcher.cli.main import main

sys.exit(main())
