# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Facts of the SEV ABI and of our own file formats, each once; standard library only, used by both sides."""
