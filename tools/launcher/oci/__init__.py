# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From an OCI runtime's config.json to a workload document (docs/oci-fields.md).

    fields     every field of the specification: honoured, satisfied by the VM, or refused
    values     typed access to JSON values
    container  what a config.json says, as plain values
    config     from a bundle's config.json to a container
    processes  the process of it, or of an exec
    filters    of system calls
    namespaces whose they are
    mounts     what the engine mounts: the guest's own, memory, files and folders of the host
    tmpfs      a tmpfs that is asked for
    settings   what whoever runs the containers decides
    translate  from a container to a document, and what the host supplies beside it
    predicted  the container that an engine makes of an image and options, without the engine
    execs      an exec that an engine asks for
    home       whom a user's id belongs to in the image

Nothing here starts anything. What is refused is a UserError of one line that names the field and, where one is known,
the engine's option that it comes from.
"""
