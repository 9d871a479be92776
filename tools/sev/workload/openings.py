# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a workload document leaves to the host, in plain words."""

from tools.sev.workload.calls import Calls
from tools.sev.workload.document import DEFAULT_CAPABILITIES, GRAMMARS, REPORTS, Document, HostFolder, Process


def asks_as_anybody(document: Document) -> bool:
    """Whether a program of it can make reports that say that somebody else asked, whatever `reports` says.

    One that may trace reaches a process that is still the agent; one that may mount, mounts the raw interface.
    """
    return any(_becomes_anybody(process) for process in (document.process, *(entry.process for entry in document.exec)))


def _becomes_anybody(process: Process) -> bool:
    has = set(process.sets.bounding)
    return "sys_ptrace" in has or ("sys_admin" in has and process.seccomp is not True)


def openings(document: Document) -> list[str]:
    """A sentence for each thing that the host may do, or learns; every guest's end and times are the host's too."""
    lines = _of_process(document.process, "the workload")
    if document.host_exec:
        lines.append(
            "commands: the host may start any command in the container, as any user, and so read and change whatever "
            "is in it, and ask for reports in the workload's name"
        )
    for entry in document.exec:
        times = "once" if entry.count == 1 else f"{entry.count} times"
        command = " ".join(entry.process.argv)
        lines.append(f"exec {entry.name}: the host may start `{command}` {times}, as uid {entry.process.uid}")
        lines += _of_process(entry.process, f"exec {entry.name}")
    lines += [
        f"files: the host may supply {file.target}, up to {file.length} bytes of any content" for file in document.files
    ]
    lines += [_of_folder(folder) for folder in document.folders]
    if document.network != "none":
        lines.append(
            "network: the host carries all traffic, sees it, may change it and make up its own; it says which "
            "addresses and routes the guest has"
        )
    if document.host_names_it:
        lines.append("host name: the host chooses it")
    if document.host_reports:
        lines.append("attest: the host may ask for attestation reports, which say that it was the host who asked")
    if document.reports == "raw":
        lines.append(f"reports: {REPORTS['raw']}")
    if not document.end_on_refusal:
        lines.append("refusals: the guest goes on after one, so the host may try again and again")
    return lines


def _of_folder(folder: HostFolder) -> str:
    if folder.write:
        return (
            f"shared: {folder.target} lies with the host, which reads and changes it at any time; the kernel trusts it"
        )
    return (
        f"folders: the host may supply {folder.target}, a folder or file of up to {folder.length} bytes of any content"
    )


def _of_process(process: Process, who: str) -> list[str]:
    lines = []
    doors = process.host
    if doors.stdin:
        lines.append(f"stdin: the host writes what {who} reads there; a shell does whatever it says")
    lines += [
        f"environment: the host may set {variable.name} for {who}: {GRAMMARS[variable.allow]}, "
        f"up to {variable.length} bytes"
        for variable in doors.environment
    ]
    if doors.resize:
        lines.append(f"resize: the host says how large the terminal of {who} is")
    if doors.signals:
        lines.append(f"signals: the host may send {who} {', '.join(map(str, doors.signals))}")
    if doors.output:
        lines.append(f"output: the host reads what {who} writes to its standard output and error")
    more = sorted(set(process.sets.bounding) - set(DEFAULT_CAPABILITIES))
    if more:
        lines.append(f"capabilities: {who} has {', '.join(more)}, beyond the usual")
    if _becomes_anybody(process):
        lines.append(f"container: {who} can leave it, and so ask for reports in the host's name")
    if isinstance(process.seccomp, Calls):
        lines.append(f"seccomp: {who} has a filter of system calls of its own, see the document")
    elif isinstance(process.seccomp, str):
        lines.append(f"seccomp: {who} has the filter of system calls that {process.seccomp} has by default")
    elif not process.seccomp:
        lines.append(f"seccomp: {who} may make any system call")
    if not process.no_new_privileges:
        lines.append(f"privileges: {who} may gain them from set-uid files in the root")
    return lines
