# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From power-on to the agent's HELLO: where the time goes, and what hardware would pay for."""
