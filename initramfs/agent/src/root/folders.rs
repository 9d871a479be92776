// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Folders and files of the host's: as archives on disks of their own, unpacked into memory, or shared over 9p.
//!
//! No file system of the host's is mounted for the first kind: what the host wrote is read by the agent's own unpacker,
//! in a process that sees nothing but the folder that it fills.

use std::fs::{self, File};
use std::io;

use crate::failure::{Code, Context, Failure};
use crate::root::mounts::{ensure_file, ensure_folders, SHELF};
use crate::root::rootfs::{self, Disk};
use crate::sys;
use crate::workload::document::Folder;

/// Programs of the host's may run, as in any container; nothing becomes root by them.
const FLAGS: u64 = libc::MS_NOSUID | libc::MS_NODEV;
/// What an archive has at its top: a folder, or the one file.
const TOP: &str = "data";
/// Of an entry, whatever it holds: that many bytes of the limit are one file, folder or link.
const BYTES_PER_ENTRY: u64 = 1_024;
const FEW_ENTRIES: u64 = 16;
/// No data is kept in here longer than a program has it mapped: the host may change files at any time.
const SHARED: &str = "trans=virtio,version=9p2000.L,msize=131072,cache=mmap";

/// A folder that can be put in place when the agent's own mounts are gone.
pub struct Opened {
    number: usize,
    folder: Folder,
    disk: Option<(File, u64)>,
}

/// Opens the disks. Runs before the agent's mounts are detached.
pub fn open(folders: &[Folder]) -> Result<Vec<Opened>, Failure> {
    let opened = |(number, folder): (usize, &Folder)| {
        let disk = match folder.copied {
            Some(_) => {
                let name = serial(number);
                let disk = rootfs::find_disk(&name)
                    .and_then(|Disk { path, bytes }| Ok((File::open(path)?, bytes)))
                    .context(Code::Rootfs, format_args!("disk with serial {name}"))?;
                Some(disk)
            }
            None => None,
        };
        Ok(Opened { number, folder: folder.clone(), disk })
    };
    folders.iter().enumerate().map(opened).collect()
}

fn serial(number: usize) -> String {
    format!("folder{number}")
}

/// What has been put in place so far. The host wrote what is in there, links too, and in a shared one it still does.
#[derive(Default)]
pub struct Placed(Vec<Folder>);

impl Placed {
    /// What is mounted or masked below a folder of the host's lies where the document says, and not where a link of the
    /// host's leads. For what is there already.
    pub fn check(&self, path: &str) -> Result<(), Failure> {
        for Folder { target, copied } in &self.0 {
            let Some(rest) = path.strip_prefix(target.as_str()).and_then(|rest| rest.strip_prefix('/'))
            else {
                continue;
            };
            let lies = |what| Failure::new(Code::Rootfs, format!("{path}: lies in {target}, {what}"));
            if copied.is_none() {
                return Err(lies("which is shared with the host"));
            }
            let real = |path| fs::canonicalize(path).context(Code::Rootfs, path);
            if real(path)? != real(target.as_str())?.join(rest) {
                return Err(lies("where a link of the host's leads elsewhere"));
            }
        }
        Ok(())
    }
}

/// Puts them onto their targets. Runs inside the root.
pub fn place(folders: Vec<Opened>) -> Result<Placed, Failure> {
    let mut placed = Placed::default();
    for Opened { number, folder, disk } in folders {
        let target = &folder.target;
        match (disk, folder.copied) {
            (Some((disk, length)), Some(limit)) => copy(disk, length, limit, target),
            _ => share(&serial(number), target),
        }
        .map_err(|failure| Failure::new(failure.code, format!("{target}: {}", failure.message)))?;
        placed.check(target)?;
        placed.0.push(folder);
    }
    Ok(placed)
}

fn copy(disk: File, length: u64, limit: u64, target: &str) -> Result<(), Failure> {
    let entries = limit / BYTES_PER_ENTRY + FEW_ENTRIES;
    let data = format!("size={limit},nr_inodes={entries},mode=0755");
    sys::mount("tmpfs", SHELF, Some("tmpfs"), FLAGS, Some(&data)).context(Code::Rootfs, "tmpfs")?;
    rootfs::extract_apart(disk, length, None, SHELF)?;
    bind(&format!("{SHELF}/{TOP}"), target).context(Code::Rootfs, "mount")?;
    // What lies beside it in the archive is gone with this, and so is the last way to write to it.
    sys::detach(SHELF).context(Code::Rootfs, "detach")
}

fn bind(source: &str, target: &str) -> io::Result<()> {
    let kind = fs::symlink_metadata(source)
        .map_err(|error| io::Error::new(error.kind(), format!("no {TOP} in the archive: {error}")))?
        .file_type();
    if kind.is_dir() {
        ensure_folders(target)?;
    } else if kind.is_file() {
        ensure_file(target)?;
    } else {
        return Err(io::Error::other(format!("{TOP} in the archive is neither a folder nor a file")));
    }
    sys::mount(source, target, None, libc::MS_BIND, None)?;
    let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | FLAGS;
    sys::mount(source, target, None, flags, None)
}

fn share(tag: &str, target: &str) -> Result<(), Failure> {
    ensure_folders(target).context(Code::Rootfs, "folder")?;
    match sys::mount(tag, target, Some("9p"), FLAGS, Some(SHARED)) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Err(Failure::new(
            Code::Unsupported,
            "is to be shared with the host, and this guest's kernel has no 9p file system",
        )),
        result => result.context(Code::Rootfs, "share of the host"),
    }
}
