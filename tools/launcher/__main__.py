# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m tools.launcher`."""

import sys

from tools.launcher.base import descriptors

descriptors.fill()

from tools.launcher.cli.main import main  # noqa: E402  nothing else may be opened before

sys.exit(main())
