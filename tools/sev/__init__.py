# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Facts of the SEV ABI and of our own file formats, each once; used by both sides, packed into sev-launch.

Python's standard library only, and nothing of ours from outside this folder:

    policy, limits, formats        plain values, no imports
    modes, cpu_models, id_block    the words and numbers that recipes, runtime.toml and options share
    footer ── firmware_check       what an OVMF image says at its end, and whether it is whole
    hashes_table, vmsa             layouts of what is measured beside the firmware
    workload/                      the document that says what runs in a guest
    toml                           the strict reader of every TOML file
    errors                         what all of them raise; each side turns it into an error of its own

The launch digest is computed twice, by the pipeline with sev-snp-measure and by the launcher with code of its
own, and both must agree. What both may take from here are facts that a person can compare with a
specification: layouts, signatures, features, addresses, and the check that a firmware is whole. No chain, no
page and no digest is computed here; the docstrings of tools/launcher/measure and tools/pipeline/measure say
what each side does by itself.
"""
