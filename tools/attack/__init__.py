# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The hostile host, played against built artifacts: `./doit attack`.

A third side, beside tools/pipeline and tools/launcher: it may use both and tools/sev, and neither knows it.
"""
