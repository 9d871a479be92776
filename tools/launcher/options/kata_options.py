# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Options of `digest --vmm kata-go|kata-rust`: a pod's shape, as far as its launch digest depends on it."""

from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.base.values import Values
from tools.launcher.options.arguments import cmdline_text, whole
from tools.launcher.options.parser import Group, Option
from tools.sev.limits import VCPUS_MAX

# tools/launcher/kata/cmdline.py has the same words; it is not imported for a list of options.
_VMMS = ("kata-go", "kata-rust")
_FILESYSTEMS = ("erofs", "ext4", "xfs")


def _maybe_empty(text: str) -> str:
    return cmdline_text(text) if text else ""


KATA = Group(
    "pods of Kata Containers (docs/kata.md)",
    Option("--vmm", choices=_VMMS, text="who starts it: Kata's Go or Rust runtime, with QEMU"),
    Option("--kata-release", "NAME", text="whose command line; default: the newest that is known here"),
    Option("--initrd", "FILE", text="the initramfs with kata-agent", convert=Path),
    Option("--root-image", choices=_FILESYSTEMS, text="file system of the root image, in place of an initramfs"),
    Option("--root-verity", "TEXT", text="Kata's kernel_verity_params of the image", convert=cmdline_text),
    Option("--kernel-params", "TEXT", text="kernel_params of its configuration", convert=cmdline_text),
    Option("--agent-params", "TEXT", text="what it adds for the agent, if not the default", convert=_maybe_empty),
    Option("--max-cpus", "N", text="its nr_cpus, 0: none; default: --cpus", convert=whole(0, VCPUS_MAX)),
    Option("--guest-selinux", text="disable_guest_selinux = false"),
    Option("--kata-debug", text="enable_debug = true of the hypervisor"),
    Option("--scsi", text='block_device_driver = "virtio-scsi"'),
    Option("--cmdline", "TEXT", text="the whole line, as read from a pod, in place of all that", convert=cmdline_text),
)


def check_alone(values: Values) -> None:
    """UserError for an option of pods without --vmm."""
    for option in KATA.options:
        if values[option.key]:
            raise UserError(f"{option.name} belongs to --vmm")
