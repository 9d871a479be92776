# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What `./doit` is: how it starts and stops, its commands, what it shows, where it remembers what is done."""
