// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! What a container cannot write to, and what it cannot see. Runs inside its root, as the last of what is mounted there.

use std::fs;
use std::io;
use std::path::Path;

use crate::failure::{Code, Context, Failure};
use crate::root::folders::Placed;
use crate::root::mounts::READ_ONLY;
use crate::sys;

/// Files and folders through which root, even without capabilities, changes or reads the kernel.
const MADE_READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const MASKED: [&str; 6] =
    ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"];

/// What a workload document protects, beside what is protected in every container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    pub root: bool,
    pub read_only: Vec<String>,
    pub masked: Vec<String>,
}

/// In every container.
pub fn kernel() -> Result<(), Failure> {
    paths(MADE_READ_ONLY, MASKED)
}

/// What the document says.
pub fn apply(protected: &Protected, placed: &Placed) -> Result<(), Failure> {
    for path in protected.read_only.iter().chain(&protected.masked).filter(|path| Path::new(path).exists()) {
        placed.check(path)?;
    }
    paths(protected.read_only.iter().map(String::as_str), protected.masked.iter().map(String::as_str))?;
    if protected.root {
        remount_read_only("/").context(Code::Rootfs, "read-only root")?;
    }
    Ok(())
}

/// Paths that are not there are passed over: a kernel without them has nothing to protect.
fn paths<'a>(
    read_only: impl IntoIterator<Item = &'a str>,
    masked: impl IntoIterator<Item = &'a str>,
) -> Result<(), Failure> {
    for path in read_only {
        if Path::new(path).exists() {
            sys::mount(path, path, None, libc::MS_BIND | libc::MS_REC, None)
                .and_then(|()| remount_read_only(path))
                .context(Code::Rootfs, format_args!("read-only {path}"))?;
        }
    }
    for path in masked {
        let result = match fs::metadata(path) {
            Ok(data) if data.is_dir() => {
                sys::mount("tmpfs", path, Some("tmpfs"), READ_ONLY, Some("size=0,mode=0755"))
            }
            Ok(_) => sys::mount("/dev/null", path, None, libc::MS_BIND, None),
            Err(_) => Ok(()),
        };
        result.context(Code::Rootfs, format_args!("mask {path}"))?;
    }
    Ok(())
}

/// A remount takes off what it does not name.
fn remount_read_only(path: &str) -> io::Result<()> {
    let flags = sys::mount_flags(path)? | libc::MS_RDONLY;
    sys::mount(path, path, None, libc::MS_BIND | libc::MS_REMOUNT | flags, None)
}
