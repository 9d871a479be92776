// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The only module with `unsafe`: thin wrappers around system calls that the standard library does not offer.
//!
//! Each wrapper takes owned or borrowed Rust types, so that no caller handles a pointer or a raw descriptor's lifetime.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use libc::pollfd as PollFd;

pub mod credentials;
pub mod network;
pub mod terminal;

/// The C entry point. Rust's own start code aborts when descriptors 0 to 2 are closed and there is no /dev/null,
/// which is exactly how a guest without a console starts its PID 1.
#[cfg(not(test))]
#[no_mangle]
pub extern "C" fn main(_argc: libc::c_int, _argv: *const *const libc::c_char) -> libc::c_int {
    crate::start()
}

/// Turns the "-1 and errno" convention into a `Result`.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// A NUL-terminated copy of a path or string; an inner NUL is EINVAL.
fn c_string(text: impl AsRef<OsStr>) -> io::Result<CString> {
    CString::new(text.as_ref().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

fn pointer(text: Option<&CString>) -> *const libc::c_char {
    text.map_or(std::ptr::null(), |text| text.as_ptr())
}

pub fn getpid() -> i32 {
    // SAFETY: no arguments, no preconditions.
    unsafe { libc::getpid() }
}

/// Forks; `None` is the child. The agent has one thread, so the child may go on using the heap.
pub fn fork() -> io::Result<Option<i32>> {
    // SAFETY: single-threaded process (nothing in this crate starts a thread outside of tests).
    let pid = check(unsafe { libc::fork() })?;
    Ok((pid != 0).then_some(pid))
}

/// Ends a forked child at once: no destructors, which belong to the parent.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: no preconditions.
    unsafe { libc::_exit(status) }
}

/// A pipe, both ends close-on-exec: (read end, write end).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    // SAFETY: `ends` has room for two descriptors, which on success nobody else owns.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

pub fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: plain fcntl on a borrowed, open descriptor.
    unsafe {
        let flags = check(libc::fcntl(raw, libc::F_GETFL))?;
        check(libc::fcntl(raw, libc::F_SETFL, flags | libc::O_NONBLOCK))?;
    }
    Ok(())
}

/// Makes `target` a copy of `fd` that survives exec. Used in forked children only, for descriptors 0 to 3.
pub fn dup_onto(fd: &impl AsFd, target: RawFd) -> io::Result<()> {
    // SAFETY: the source is borrowed; the target belongs to a forked child that is about to exec or loop.
    check(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), target) }).map(drop)
}

/// Takes descriptor `fd`, which the caller has just set up with `dup_onto`.
pub fn take_fd(fd: RawFd) -> File {
    // SAFETY: called right after `dup_onto` in a forked child; no other object owns the copy.
    unsafe { File::from_raw_fd(fd) }
}

/// Closes every descriptor from `first` on. For forked children, whose inherited Rust objects are never dropped.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: only called in a child that ends with `exit_now` or exec, never by dropping inherited owners.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Waits for events; `timeout` in milliseconds, -1 for none. An interruption is reported as no event.
pub fn poll(fds: &mut [PollFd], timeout: i32) -> io::Result<()> {
    for entry in fds.iter_mut() {
        entry.revents = 0;
    }
    let count = libc::nfds_t::try_from(fds.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: pointer and length come from one slice.
    match check(unsafe { libc::poll(fds.as_mut_ptr(), count, timeout) }) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        other => other.map(drop),
    }
}

/// Number of bytes that can be read from a pipe now.
pub fn readable_bytes(fd: &impl AsFd) -> io::Result<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD stores one int.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Runs a device-mapper ioctl on `buffer`, which holds a `struct dm_ioctl` and its data.
pub fn device_mapper(fd: &impl AsFd, request: u64, buffer: &mut [u8]) -> io::Result<()> {
    let stated = buffer.get(12..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes);
    if buffer.len() < 312 || usize::try_from(stated).ok() != Some(buffer.len()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the kernel reads and writes at most `data_size` bytes, just checked to be the buffer's length.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, buffer.as_mut_ptr()) }).map(drop)
}

pub fn mount(
    source: &str,
    target: &str,
    kind: Option<&str>,
    flags: u64,
    data: Option<&str>,
) -> io::Result<()> {
    let (source, target) = (c_string(source)?, c_string(target)?);
    let (kind, data) = (kind.map(c_string).transpose()?, data.map(c_string).transpose()?);
    // SAFETY: all strings outlive the call; kind and data may be null.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            pointer(kind.as_ref()),
            flags,
            pointer(data.as_ref()).cast(),
        )
    })
    .map(drop)
}

/// The flags of the mount that a path is on, as `mount` takes them: no devices, no programs, no set-uid, read-only.
pub fn mount_flags(path: &str) -> io::Result<u64> {
    let path = c_string(path)?;
    // SAFETY: the string outlives the call, which fills the structure.
    let found = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        check(libc::statvfs(path.as_ptr(), &raw mut found))?;
        found.f_flag
    };
    // The numbers of these four are the same in both.
    Ok(found & (libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_NOSUID | libc::MS_RDONLY))
}

/// Detaches a mount and everything below it.
pub fn detach(target: &str) -> io::Result<()> {
    let target = c_string(target)?;
    // SAFETY: the string outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }).map(drop)
}

pub fn unshare(flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

/// Enters the namespaces in `flags` of the process behind `pidfd`.
pub fn setns(pidfd: &impl AsFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::setns(pidfd.as_fd().as_raw_fd(), flags) }).map(drop)
}

pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the returned descriptor is new and owned by nobody else. Pidfds are close-on-exec.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        let fd = check(libc::c_int::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A copy of a descriptor of the process behind `pidfd`, close-on-exec.
pub fn descriptor_of(pidfd: &impl AsFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the returned descriptor is new and owned by nobody else.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), number, 0);
        let fd = check(libc::c_int::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Reaps one ended child: (pid, wait status). With `block` it waits; `None` means none has ended, or there is none.
pub fn wait_any(block: bool) -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` is one int.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, if block { 0 } else { libc::WNOHANG }) };
    (pid > 0).then_some((pid, status))
}

pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Blocks all signals, so that they are only seen where they are waited for.
pub fn block_signals() -> io::Result<()> {
    // SAFETY: the set is initialised by sigfillset before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())).map(drop)
    }
}

/// An empty signal mask and default dispositions, as a new process expects them.
pub fn reset_signals() -> io::Result<()> {
    // SAFETY: SIG_DFL installs no handler; the set is initialised by sigemptyset before use.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL); // fails for KILL, STOP and glibc's own two: nothing to reset there
        }
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()))?;
    }
    Ok(())
}

/// 0 is for code that creates files with exact modes.
pub fn set_umask(mask: u32) {
    // SAFETY: no preconditions.
    unsafe { libc::umask(mask) };
}

/// A descriptor that becomes readable when a child has ended. SIGCHLD has to be blocked.
pub fn child_signal_fd() -> io::Result<File> {
    // SAFETY: the set is initialised before use; the returned descriptor is new.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        let fd = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(File::from_raw_fd(fd))
    }
}

/// Waits until SIGCHLD, which has to be blocked, is pending, and takes it.
pub fn wait_for_child_signal() {
    // SAFETY: the set is initialised before use.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        libc::sigwaitinfo(&raw const set, std::ptr::null_mut());
    }
}

pub fn setsid() -> io::Result<()> {
    // SAFETY: no preconditions.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Gives up (or denies) tracing and /proc access by processes of the same uid until the next exec.
pub fn set_undumpable() -> io::Result<()> {
    // SAFETY: prctl with integer arguments.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }).map(drop)
}

/// No program that is executed from here on gives more privileges than its caller has.
pub fn no_new_privileges() -> io::Result<()> {
    // SAFETY: prctl with integer arguments.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).map(drop)
}

/// Sets a resource limit by its number.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the structure outlives the call.
    check(unsafe { libc::setrlimit(resource, &raw const limit) }).map(drop)
}

/// Puts the calling process and what it starts under a filter of system calls. Takes root, or no new privileges.
pub fn filter_calls(program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: pointer and length come from one slice, which the kernel copies and does not write to.
    check(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) })
        .map(drop)
}

/// Replaces the process image. Returns only on failure.
pub fn exec(path: &CStr, argv: &[CString], environment: &[CString]) -> io::Error {
    let terminated = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|item| item.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, environment) = (terminated(argv), terminated(environment));
    // SAFETY: both arrays end with a null pointer and point into strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

pub fn make_node(path: &Path, mode: u32, major: u32, minor: u32) -> io::Result<()> {
    let path = c_string(path)?;
    // SAFETY: the string outlives the call.
    check(unsafe { libc::mknod(path.as_ptr(), mode, libc::makedev(major, minor)) }).map(drop)
}

/// Sets the modification (and access) time without following a symbolic link.
pub fn set_mtime(path: &Path, seconds: i64, nanoseconds: u32) -> io::Result<()> {
    let path = c_string(path)?;
    let time = libc::timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let times = [time, time];
    // SAFETY: string and array outlive the call.
    check(unsafe {
        libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times.as_ptr(), libc::AT_SYMLINK_NOFOLLOW)
    })
    .map(drop)
}

pub fn set_xattr(path: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    let (path, name) = (c_string(path)?, c_string(OsStr::from_bytes(name))?);
    // SAFETY: strings outlive the call; pointer and length of the value come from one slice.
    check(unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
        .map(drop)
}

pub fn set_hostname(name: &[u8]) -> io::Result<()> {
    // SAFETY: pointer and length come from one slice.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Writes file systems back and switches the machine off. A kernel that cannot is told to restart, which QEMU's
/// `-no-reboot` turns into an end as well.
pub fn power_off() -> ! {
    // SAFETY: no memory is passed.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
        libc::reboot(libc::RB_AUTOBOOT);
    }
    exit_now(1)
}
