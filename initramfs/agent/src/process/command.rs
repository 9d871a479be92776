// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! What a process is, whoever says so: the workload document, or SPAWN in an unbound guest.

use std::ffi::CString;

/// By number: include/uapi/linux/capability.h.
#[rustfmt::skip]
pub const CAPABILITIES: [&str; 41] = [
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
];

/// By number: include/uapi/asm-generic/resource.h.
#[rustfmt::skip]
pub const RLIMITS: [&str; 16] = [
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending",
    "msgqueue", "nice", "rtprio", "rttime",
];

/// What root keeps where no document says it. Docker's default set without mknod (the root is nodev anyway, devices of
/// the guest are none of the workload's business), and with syslog: the kernel log of the guest belongs to the
/// workload's owner.
#[rustfmt::skip]
const UNBOUND: [&str; 14] = [
    "audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "net_bind_service", "net_raw", "setfcap",
    "setgid", "setpcap", "setuid", "sys_chroot", "syslog",
];

/// The bits of some capabilities.
pub fn capability_mask(names: &[&str]) -> u64 {
    (0..)
        .zip(CAPABILITIES)
        .filter(|(_, name)| names.contains(name))
        .fold(0, |mask, (bit, _)| mask | (1 << bit))
}

/// The bounding set of a process that the host chooses.
pub fn unbound_capabilities() -> u64 {
    capability_mask(&UNBOUND)
}

/// A resource limit, by number; `u64::MAX` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// All that exec needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    pub argv: Vec<CString>,
    pub environment: Vec<CString>,
    pub cwd: CString,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// The bounding set, by number.
    pub capabilities: u64,
    pub no_new_privileges: bool,
    /// Whether the filter of system calls (process/filter.rs) is on.
    pub filtered: bool,
    pub limits: Vec<Limit>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_capabilities_are_not_kept() {
        assert_eq!(unbound_capabilities().count_ones(), 14);
        // sys_module, sys_rawio, sys_ptrace, sys_admin, sys_boot, mknod, mac_admin, bpf
        for number in [16, 17, 19, 21, 22, 27, 33, 39] {
            assert_eq!(unbound_capabilities() & (1 << number), 0, "{number}");
        }
    }

    #[test]
    fn capabilities_have_the_kernels_numbers() {
        for (name, number) in [("chown", 0), ("setfcap", 31), ("syslog", 34), ("checkpoint_restore", 40)] {
            assert_eq!(capability_mask(&[name]), 1 << number);
        }
    }
}
