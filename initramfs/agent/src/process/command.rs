// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! What a process is, whoever says so: the workload document, or SPAWN in an unbound guest.

use std::ffi::CString;

use crate::process::rules::Rules;

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

/// What root keeps where no document says it: Docker's default set without mknod (the root is nodev anyway, devices of
/// the guest are none of the workload's business).
#[rustfmt::skip]
const UNBOUND: [&str; 13] = [
    "audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "net_bind_service", "net_raw", "setfcap",
    "setgid", "setpcap", "setuid", "sys_chroot",
];

/// The five sets of a process (capabilities(7)), as bits by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub bounding: u64,
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

impl Capabilities {
    /// What is wrong with the sets, if something is: they must be what exec leaves of them. Root has its bounding set
    /// then, and everybody else the ambient one.
    pub fn fault(&self, uid: u32) -> Option<&'static str> {
        let Self { bounding, permitted, effective, inheritable, ambient } = *self;
        if inheritable & !bounding != 0 || ambient & !inheritable != 0 {
            return Some("ambient must be in inheritable, and inheritable in bounding");
        }
        if permitted != effective {
            return Some("permitted and effective must be the same");
        }
        match uid {
            0 if permitted != bounding => Some("for uid 0 permitted must be as bounding"),
            1.. if permitted != ambient => Some("for this uid permitted must be as ambient"),
            _ => None,
        }
    }

    /// Of a process that the host of an unbound guest chooses.
    pub fn unbound(uid: u32) -> Self {
        Self::of(capability_mask(&UNBOUND), uid)
    }

    /// What exec leaves when these bound a process: root has them, another uid has none of its own.
    pub fn of(bounding: u64, uid: u32) -> Self {
        let permitted = if uid == 0 { bounding } else { 0 };
        Self { bounding, permitted, effective: permitted, inheritable: 0, ambient: 0 }
    }
}

/// The bits of some capabilities.
pub fn capability_mask(names: &[&str]) -> u64 {
    (0..)
        .zip(CAPABILITIES)
        .filter(|(_, name)| names.contains(name))
        .fold(0, |mask, (bit, _)| mask | (1 << bit))
}

/// A resource limit, by number; `u64::MAX` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// Which filter of system calls is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    #[default]
    None,
    /// That of filter.rs.
    Usual,
    Spelt(Rules),
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
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    pub filter: Filter,
    pub limits: Vec<Limit>,
    /// Whether its standard streams are a terminal of its own.
    pub terminal: bool,
    pub umask: u32,
}

/// Where nobody says another.
pub const USUAL_UMASK: u32 = 0o022;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileged_capabilities_are_not_kept() {
        let root = Capabilities::unbound(0);
        assert_eq!(root.bounding.count_ones(), 13);
        // sys_module, sys_rawio, sys_ptrace, sys_admin, sys_boot, mknod, mac_admin, syslog, bpf
        for number in [16, 17, 19, 21, 22, 27, 33, 34, 39] {
            assert_eq!(root.bounding & (1 << number), 0, "{number}");
        }
        let user = Capabilities::unbound(1000);
        assert_eq!((user.bounding, user.permitted, user.ambient), (root.bounding, 0, 0));
        assert_eq!((root.fault(0), user.fault(1000)), (None, None));
        assert!(root.fault(1000).is_some() && user.fault(0).is_some());
    }

    #[test]
    fn capabilities_have_the_kernels_numbers() {
        for (name, number) in [("chown", 0), ("setfcap", 31), ("syslog", 34), ("checkpoint_restore", 40)] {
            assert_eq!(capability_mask(&[name]), 1 << number);
        }
    }
}
