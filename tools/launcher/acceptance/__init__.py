# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch acceptance`: what is claimed of guests, looked at on this host (docs/acceptance.md).

probe       the program that runs in the guests
ambient     chance and the date, in one place
signer      a key of one run, and the ID blocks that it signs
hostile     what a host changes: blobs, command line, ID block, a device
starts      guests that are started, and how those end that must not start
talk        the conversation with an honest guest, and what is looked at meanwhile
measured    what the secure processor says of an SEV or SEV-ES guest
sizes       the secure processor's time for a page
scenario    which guests are started on this host, in which order: the evidence
judges      from evidence to verdicts, as pure functions
catalogue   the checks by name, each with its judge
document    all of it as JSON
"""
