# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What this host sees of a guest's memory, read as any root can: /proc/PID/mem. docs/memcheck.md.

process     a QEMU process: its command line, its mappings, which of them is the guest's memory
scan        reading mappings, what is found in them, what their pages look like
verdict     from that to one word
pool        whether what crossed a channel lies in the guest's bounce buffers
dump        bytes for people
"""
