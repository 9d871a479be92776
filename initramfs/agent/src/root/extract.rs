// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Writes a tar archive's members into a directory. Runs in a child that is chrooted into that directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{lchown, symlink, DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::root::tar::{Archive, Entry, Kind};
use crate::sys;

const COPY_BYTES: usize = 128 * 1_024;
/// Names of directories whose times have to be set at the end.
const MAX_DIRECTORY_BYTES: usize = 32 << 20;

/// Extracts everything below `root`. The umask has to be 0. Errors name the member.
pub fn extract(source: impl Read, root: &Path) -> Result<(), String> {
    let mut archive = Archive::new(source);
    let mut directories = Directories::default();
    let mut buffer = vec![0; COPY_BYTES];
    let mut empty = true;
    while let Some(entry) = archive.next_entry().map_err(|error| format!("tar: {error}"))? {
        let result = path_below(root, &entry.path)
            .and_then(|path| write_entry(&mut archive, &entry, root, &path, &mut buffer).map(|()| path))
            .and_then(|path| {
                if entry.kind == Kind::Directory {
                    directories.add(path, entry.mtime)
                } else {
                    Ok(())
                }
            });
        empty = false;
        result.map_err(|error| format!("tar: {}: {error}", shown(&entry.path)))?;
    }
    // A zeroed disk, and the first KiB of a file system image, look like an archive's end mark.
    if empty {
        return Err("tar: the archive has no members".to_owned());
    }
    directories.set_times().map_err(|error| format!("tar: directory times: {error}"))
}

/// A member's name for an error message: at most 200 bytes, control characters escaped.
fn shown(path: &[u8]) -> String {
    path.get(..200).unwrap_or(path).escape_ascii().to_string()
}

/// Directories change their time whenever something is put into them, so all of that comes last.
#[derive(Default)]
struct Directories {
    list: Vec<(PathBuf, (i64, u32))>,
    bytes: usize,
}

impl Directories {
    fn add(&mut self, path: PathBuf, mtime: (i64, u32)) -> io::Result<()> {
        self.bytes += path.as_os_str().len() + size_of::<(PathBuf, (i64, u32))>();
        if self.bytes > MAX_DIRECTORY_BYTES {
            return Err(io::Error::other("too many directories"));
        }
        self.list.push((path, mtime));
        Ok(())
    }

    fn set_times(self) -> io::Result<()> {
        for (path, (seconds, nanoseconds)) in self.list {
            // A later member may have replaced the directory.
            if fs::symlink_metadata(&path).is_ok_and(|data| data.is_dir()) {
                sys::set_mtime(&path, seconds, nanoseconds)?;
            }
        }
        Ok(())
    }
}

/// A name from the archive as a path below `root`: leading slashes and dots go, `..` is refused.
fn path_below(root: &Path, name: &[u8]) -> io::Result<PathBuf> {
    let mut path = root.to_path_buf();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(io::Error::new(io::ErrorKind::InvalidData, "name with a .. component")),
            part => path.push(std::ffi::OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}

/// Takes away what an earlier member left at `path`, so that nothing is written through an old link or device.
fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(parent) => fs::DirBuilder::new().recursive(true).mode(0o755).create(parent),
            None => Ok(()),
        },
        Err(error) => Err(error),
    }
}

fn write_entry(
    archive: &mut Archive<impl Read>,
    entry: &Entry,
    root: &Path,
    path: &Path,
    buffer: &mut [u8],
) -> io::Result<()> {
    match entry.kind {
        Kind::Directory => {
            if !fs::symlink_metadata(path).is_ok_and(|data| data.is_dir()) {
                clear(path)?;
                fs::DirBuilder::new().mode(0o700).create(path)?;
            }
        }
        _ if path == root => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the root is not a directory"))
        }
        Kind::HardLink => {
            let target = path_below(root, &entry.link)?;
            if target == path {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "hard link to itself"));
            }
            clear(path)?;
            // Mode, owner and times are those of the target.
            return fs::hard_link(target, path);
        }
        Kind::Symlink => {
            clear(path)?;
            symlink(std::ffi::OsStr::from_bytes(&entry.link), path)?;
        }
        Kind::File => {
            clear(path)?;
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            copy_content(archive, file, buffer)?;
        }
        Kind::CharDevice => make_node(path, libc::S_IFCHR, entry.device)?,
        Kind::BlockDevice => make_node(path, libc::S_IFBLK, entry.device)?,
        Kind::Fifo => make_node(path, libc::S_IFIFO, (0, 0))?,
    }
    // Owner first: chown clears set-id bits and file capabilities.
    lchown(path, Some(entry.uid), Some(entry.gid))?;
    if entry.kind != Kind::Symlink {
        fs::set_permissions(path, fs::Permissions::from_mode(entry.mode))?;
    }
    for (name, value) in &entry.xattrs {
        sys::set_xattr(path, name, value)?;
    }
    sys::set_mtime(path, entry.mtime.0, entry.mtime.1)
}

fn make_node(path: &Path, kind: u32, device: (u32, u32)) -> io::Result<()> {
    clear(path)?;
    sys::make_node(path, kind | 0o600, device.0, device.1)
}

fn copy_content(archive: &mut Archive<impl Read>, mut file: File, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        let count = archive.read(buffer)?;
        if count == 0 {
            return Ok(());
        }
        file.write_all(buffer.get(..count).unwrap_or_default())?;
    }
}
