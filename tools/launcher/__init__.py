# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Start the guest that out/ describes and relay one workload's standard streams.

Python standard library only; runs as `python -m tools.launcher` and from the zipapp out/sev-launch alike.
"""
