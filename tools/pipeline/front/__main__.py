# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m tools.pipeline.front ARGUMENTS`: `./doit` for a Python that has the requirements already."""

import sys

from tools.pipeline.front.main import run

run(sys.argv[1:])
