// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The usual filter of system calls (seccomp): refused is what a container's program does not need and much of the kernel
//! hangs on. Such a call gets EPERM; clone3, whose flags a filter cannot see, ENOSYS, and programs then use clone.

pub use libc::sock_filter as Instruction;

/// `AUDIT_ARCH_X86_64`, include/uapi/linux/audit.h.
const X86_64: u32 = 0xc000_003e;
/// Calls of the x32 ABI carry this bit.
const X32: u32 = 0x4000_0000;
/// `CLONE_NEWNS`, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NEW_NAMESPACES: u32 = 0x7e02_0000;

// Offsets in struct seccomp_data, and the instructions (include/uapi/linux/bpf_common.h).
pub const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
pub const FIRST_ARGUMENT: u32 = 16;
pub const LOAD: u16 = 0x20;
pub const IF_EQUAL: u16 = 0x15;
pub const IF_AT_LEAST: u16 = 0x35;
const IF_ANY_BIT: u16 = 0x45;
pub const RETURN: u16 = 0x06;
pub const ALLOW: u32 = 0x7fff_0000;
pub const ERROR: u32 = 0x0005_0000;

#[rustfmt::skip]
const REFUSED: [libc::c_long; 55] = [
    // Namespaces, mounts, roots.
    libc::SYS_unshare, libc::SYS_setns, libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_move_mount,
    libc::SYS_open_tree, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_mount_setattr, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_quotactl, libc::SYS_quotactl_fd,
    libc::SYS_open_by_handle_at, libc::SYS_name_to_handle_at,
    // Code and data of the kernel.
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load,
    libc::SYS_kexec_file_load, libc::SYS_bpf, libc::SYS_reboot, libc::SYS_iopl, libc::SYS_ioperm,
    libc::SYS_modify_ldt, libc::SYS_acct, libc::SYS_uselib, libc::SYS_ustat, libc::SYS_sysfs, libc::SYS_vhangup,
    // Interfaces that many faults were found in.
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_userfaultfd,
    libc::SYS_perf_event_open, libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl, libc::SYS_fanotify_init,
    // Other processes.
    libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_kcmp, libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise, libc::SYS_move_pages, libc::SYS_migrate_pages,
    // The clock, and what changes how programs are loaded.
    libc::SYS_settimeofday, libc::SYS_clock_settime, libc::SYS_clock_adjtime, libc::SYS_adjtimex,
    libc::SYS_personality,
];

/// What every program begins with: calls of other architectures are unknown, and the number of the call is loaded.
pub fn head() -> Vec<Instruction> {
    let step = |code, k| Instruction { code, jt: 0, jf: 0, k };
    let unknown = step(RETURN, ERROR | u32::try_from(libc::ENOSYS).unwrap_or(0));
    vec![
        step(LOAD, ARCHITECTURE),
        Instruction { code: IF_EQUAL, jt: 1, jf: 0, k: X86_64 },
        unknown,
        step(LOAD, NUMBER),
        Instruction { code: IF_AT_LEAST, jt: 0, jf: 1, k: X32 },
        unknown,
    ]
}

/// The program that the kernel runs for each call.
pub fn program() -> Vec<Instruction> {
    let step = |code, k| Instruction { code, jt: 0, jf: 0, k };
    // Goes on with the next instruction where the condition holds, else with the one behind it.
    let test = |code, k| Instruction { code, jt: 0, jf: 1, k };
    let refuse = |error: i32| step(RETURN, ERROR | u32::try_from(error).unwrap_or(0));
    let mut program = head();
    program.extend([test(IF_EQUAL, number(libc::SYS_clone3)), refuse(libc::ENOSYS)]);
    for call in REFUSED {
        program.extend([test(IF_EQUAL, number(call)), refuse(libc::EPERM)]);
    }
    program.extend([
        Instruction { code: IF_EQUAL, jt: 0, jf: 3, k: number(libc::SYS_clone) },
        step(LOAD, FIRST_ARGUMENT),
        test(IF_ANY_BIT, NEW_NAMESPACES),
        refuse(libc::EPERM),
        step(RETURN, ALLOW),
    ]);
    program
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// What the kernel would do, for the few instructions that are used.
    fn answer(architecture: u32, call: u32, argument: u32) -> u32 {
        let program = program();
        let (mut at, mut loaded) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let holds = match code {
                LOAD => {
                    loaded = [call, architecture, argument][[NUMBER, ARCHITECTURE, FIRST_ARGUMENT]
                        .iter()
                        .position(|offset| *offset == k)
                        .unwrap()];
                    continue;
                }
                RETURN => return k,
                IF_EQUAL => loaded == k,
                IF_AT_LEAST => loaded >= k,
                IF_ANY_BIT => loaded & k != 0,
                other => unreachable!("{other}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    #[test]
    fn what_programs_need_is_allowed() {
        for call in [libc::SYS_read, libc::SYS_execve, libc::SYS_mmap, libc::SYS_socket, libc::SYS_seccomp] {
            assert_eq!(answer(X86_64, number(call), u32::MAX), ALLOW, "{call}");
        }
        // A thread, and a fork.
        assert_eq!(answer(X86_64, number(libc::SYS_clone), 0x003d_0f00), ALLOW);
        assert_eq!(answer(X86_64, number(libc::SYS_clone), 17), ALLOW);
    }

    #[test]
    fn the_rest_is_refused() {
        for call in REFUSED {
            assert_eq!(answer(X86_64, number(call), 0), ERROR | 1, "{call}");
        }
        assert_eq!(answer(X86_64, number(libc::SYS_clone3), 0), ERROR | 38);
        assert_eq!(answer(X86_64, X32 | 1, 0), ERROR | 38);
        assert_eq!(answer(0x4000_0003, 1, 0), ERROR | 38);
        for flag in [
            libc::CLONE_NEWNS,
            libc::CLONE_NEWCGROUP,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
        ] {
            assert_eq!(answer(X86_64, number(libc::SYS_clone), u32::try_from(flag).unwrap()), ERROR | 1);
        }
    }
}
