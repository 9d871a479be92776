# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The workload document: what runs in a guest, and what its host may do (docs/workload.md).

    canonical    JSON in its one form
    document     what a document says, as plain values; its bytes and digest
    calls        a filter of system calls
    engines      what container engines give a process by default, by name
    fields       strict reading of one JSON object
    reader       from bytes to a document, or to one line that says what is wrong
    openings     what a document leaves to the host, in plain words

The agent has a reader of its own (initramfs/agent/src/workload/); both are tested with the same documents.
"""
