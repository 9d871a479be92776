// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! System calls for who a process is and what it may do.

use std::io;

use super::check;
use crate::process::command::Capabilities;

/// `_LINUX_CAPABILITY_VERSION_3`, include/uapi/linux/capability.h: two times 32 bits.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Drops every capability outside `keep` (bit mask by capability number) from the bounding set.
pub fn bound_capabilities(keep: u64) -> io::Result<()> {
    for capability in 0..64_u64 {
        // SAFETY: prctl with integer arguments.
        let known = unsafe { libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) };
        if known < 0 {
            break; // beyond the kernel's last capability
        }
        if keep & (1 << capability) == 0 {
            // SAFETY: as above.
            check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })?;
        }
    }
    Ok(())
}

/// Takes on groups, gid and uid, in the order in which each step is still permitted. Permitted capabilities stay until
/// exec, so that `set_capabilities` can still raise some.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: pointer and length come from one slice. -1, "leave unchanged", was refused by the message decoder.
    unsafe {
        check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid)).map(drop)
    }
}

/// Sets everything but the bounding set. The permitted set shrinks to what is wanted.
pub fn set_capabilities(wanted: &Capabilities) -> io::Result<()> {
    // The kernel's two halves of each set; the truncation is meant.
    #[allow(clippy::cast_possible_truncation)]
    let half = |shift: u32| Sets {
        effective: (wanted.effective >> shift) as u32,
        permitted: (wanted.permitted >> shift) as u32,
        inheritable: (wanted.inheritable >> shift) as u32,
    };
    let header = Header { version: VERSION_3, pid: 0 };
    let sets = [half(0), half(32)];
    // SAFETY: version 3 reads one header and two sets, which outlive the call.
    unsafe {
        if libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        let (ambient, raise) = (libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE);
        for capability in (0..64_u64).filter(|capability| wanted.ambient & (1 << capability) != 0) {
            check(libc::prctl(ambient, raise, capability, 0, 0))?;
        }
    }
    Ok(())
}
