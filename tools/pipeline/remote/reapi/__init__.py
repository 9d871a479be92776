# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A Remote Execution API service: its content-addressed store, its action cache, steps executed there."""

from tools.pipeline.base import ambient

ambient.silence_grpc()
