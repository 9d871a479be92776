// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The mounts of the agent itself and those of a container.

use std::fs;
use std::io;
use std::os::unix::fs::{symlink, DirBuilderExt, PermissionsExt};
use std::path::Path;

use crate::failure::{Code, Context, Failure};
use crate::root::folders::Placed;
use crate::root::protect;
use crate::sys;
use crate::workload::document::Mount as Wanted;

const SAFE: u64 = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
pub const READ_ONLY: u64 = SAFE | libc::MS_RDONLY;

struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: u64,
    data: Option<&'static str>,
    /// A kernel without this file system still makes a usable guest.
    optional: bool,
}

const fn mount(kind: &'static str, target: &'static str, flags: u64, data: Option<&'static str>) -> Mount {
    Mount { kind, target, flags, data, optional: false }
}

const fn optional(kind: &'static str, target: &'static str, flags: u64) -> Mount {
    Mount { kind, target, flags, data: None, optional: true }
}

const AGENT: [Mount; 6] = [
    mount("sysfs", "/sys", SAFE, None),
    mount("devtmpfs", "/dev", libc::MS_NOSUID | libc::MS_NOEXEC, Some("mode=0755")),
    mount("tmpfs", "/run", SAFE, Some("mode=0755")),
    mount("tmpfs", "/tmp", SAFE, Some("mode=1777")),
    optional("cgroup2", "/sys/fs/cgroup", SAFE),
    // Secrets that were injected at launch appear here, and in the agent's namespace only.
    optional("securityfs", "/sys/kernel/security", SAFE),
];

/// What `detach_agent` takes out of the container's copy of the mount namespace; mounts below go with them.
const AGENT_TOP: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];

/// How one asks for an attestation report (tsm/report). Nothing else in this kernel uses this file system.
const REPORTS: Mount = optional("configfs", "/sys/kernel/config", SAFE);

const CONTAINER: [Mount; 8] = [
    mount("proc", "/proc", SAFE, None),
    mount("sysfs", "/sys", READ_ONLY, None),
    optional("cgroup2", "/sys/fs/cgroup", READ_ONLY),
    // The counters that show bounce buffers at work. Only the debug profile's kernel has this file system.
    optional("debugfs", "/sys/kernel/debug", READ_ONLY),
    mount("tmpfs", "/dev", SAFE, Some("mode=0755,size=64k")),
    mount(
        "devpts",
        "/dev/pts",
        libc::MS_NOSUID | libc::MS_NOEXEC,
        Some("newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ),
    mount("tmpfs", "/dev/shm", SAFE, Some("mode=1777,size=64m")),
    // Of the container's IPC namespace.
    optional("mqueue", "/dev/mqueue", SAFE),
];

/// Linux device numbers (Documentation/admin-guide/devices.txt) of what is in /dev, all mode 0666.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Where files and devices lie until they are where they belong: no document's file is in /dev.
pub const SHELF: &str = "/dev/shm";

const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Creates a folder when it is missing; what stands there already is left as it is.
pub fn ensure_folder(path: &str, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        // Not only EEXIST: a mount point inside a read-only file system that exists gives EROFS or EPERM.
        Err(_) if Path::new(path).is_dir() => Ok(()),
        other => other,
    }
}

/// The same with the folders above it. Inside a root, so that links on the way stay in it.
pub fn ensure_folders(path: &str) -> io::Result<()> {
    if Path::new(path).is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// A regular file to mount another one on.
pub fn ensure_file(path: &str) -> io::Result<()> {
    if !fs::exists(path)? {
        if let Some((folder, _)) = path.rsplit_once('/').filter(|(folder, _)| !folder.is_empty()) {
            ensure_folders(folder)?;
        }
        fs::write(path, "")?;
    }
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("no regular file"));
    }
    Ok(())
}

fn apply(mounts: &[Mount]) -> io::Result<()> {
    for Mount { kind, target, flags, data, optional } in mounts {
        let result =
            ensure_folder(target, 0o755).and_then(|()| sys::mount(kind, target, Some(kind), *flags, *data));
        if let (Err(error), false) = (result, *optional) {
            return Err(io::Error::new(error.kind(), format!("mount {target}: {error}")));
        }
    }
    Ok(())
}

/// The agent's /proc, on which the check for the initial PID namespace rests.
pub fn agent_proc() -> io::Result<()> {
    ensure_folder("/proc", 0o755)?;
    sys::mount("proc", "/proc", Some("proc"), SAFE, None)
}

/// Everything else that the agent works with.
pub fn agent() -> io::Result<()> {
    apply(&AGENT)
}

/// The report interface for the agent alone. Without it, whoever asks for a report is told.
pub fn agent_reports() -> io::Result<()> {
    apply(&[REPORTS])
}

/// Makes every mount private to this namespace.
pub fn make_private() -> io::Result<()> {
    sys::mount("none", "/", None, libc::MS_REC | libc::MS_PRIVATE, None)
}

/// Takes the agent's mounts out of the container's namespace. Layers of an overlay stay alive inside it.
pub fn detach_agent() -> io::Result<()> {
    for target in AGENT_TOP {
        sys::detach(target)?;
    }
    Ok(())
}

/// Moves the mount at the working directory onto / and enters it. From the first file system of a boot, which has no
/// parent, there is no other way in.
pub fn enter_working_directory() -> io::Result<()> {
    sys::mount(".", "/", None, libc::MS_MOVE, None)?;
    std::os::unix::fs::chroot(".")?;
    std::env::set_current_dir("/")
}

/// The container's own mounts. Runs inside its root, so that links in the image cannot lead anywhere else.
pub fn container(reports: bool) -> Result<(), Failure> {
    apply(&CONTAINER).context(Code::Rootfs, "container")?;
    if reports {
        apply(&[REPORTS]).context(Code::Rootfs, "container")?;
    }
    devices().context(Code::Rootfs, "/dev")?;
    for (path, target) in DEVICE_LINKS {
        symlink(target, path).context(Code::Rootfs, path)?;
    }
    if !Path::new("/tmp").exists() {
        ensure_folder("/tmp", 0o755)
            .and_then(|()| fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777)))
            .context(Code::Rootfs, "/tmp")?;
    }
    protect::kernel()
}

/// No file system that the container can make nodes in lets it open them: with the capability for it, a program would
/// reach the processor's report interface, the disk and the port to the host. So each device is mounted by itself.
fn devices() -> io::Result<()> {
    let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
    sys::mount("tmpfs", SHELF, Some("tmpfs"), flags, Some("mode=0755"))?;
    for (name, major, minor) in DEVICES {
        let (node, path) = (format!("{SHELF}/{name}"), format!("/dev/{name}"));
        sys::make_node(Path::new(&node), libc::S_IFCHR | 0o600, major, minor)?;
        fs::set_permissions(&node, fs::Permissions::from_mode(0o666))?;
        fs::write(&path, "")?;
        sys::mount(&node, &path, None, libc::MS_BIND, None)?;
    }
    sys::detach(SHELF)
}

/// What the workload document mounts. Inside the root, too.
pub fn of_document(mounts: &[Wanted]) -> Result<(), Failure> {
    for Wanted { target, bytes, mode, executable } in mounts {
        let flags = if *executable { libc::MS_NOSUID | libc::MS_NODEV } else { SAFE };
        let data = format!("size={bytes},mode={mode}");
        ensure_folders(target)
            .and_then(|()| sys::mount("tmpfs", target, Some("tmpfs"), flags, Some(&data)))
            .context(Code::Rootfs, target)?;
    }
    Ok(())
}

/// Puts files onto their targets, which are regular files afterwards, read-only for everybody.
pub fn supplied(files: &[(String, Vec<u8>)], placed: &Placed) -> Result<(), Failure> {
    if files.is_empty() {
        return Ok(());
    }
    sys::mount("tmpfs", SHELF, Some("tmpfs"), SAFE, Some("mode=0755")).context(Code::Rootfs, "files")?;
    for (number, (target, content)) in files.iter().enumerate() {
        place(&format!("{SHELF}/{number}"), target, content).context(Code::Rootfs, target)?;
        placed.check(target)?;
    }
    // The files stay where they are bound to.
    sys::detach(SHELF).context(Code::Rootfs, "files")
}

fn place(file: &str, target: &str, content: &[u8]) -> io::Result<()> {
    fs::write(file, content)?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o444))?;
    ensure_file(target)?;
    sys::mount(file, target, None, libc::MS_BIND, None)?;
    sys::mount(file, target, None, libc::MS_BIND | libc::MS_REMOUNT | READ_ONLY, None)
}
