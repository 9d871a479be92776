// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Extraction into a folder, as an ordinary user: what needs root (owners, devices) is tested in a booted guest.

use std::fs;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::tar::{end, header, member, seal};
use crate::root::extract::extract;
use crate::root::tar::BLOCK;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("agent-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Gives every member to the user that runs the test.
fn own(mut bytes: Vec<u8>, folder: &Path) -> Vec<u8> {
    let data = fs::metadata(folder).unwrap();
    let mut at = 0;
    while at < bytes.len() && bytes[at] != 0 {
        let size = crate::root::pax::number(&bytes[at + 124..at + 136]).unwrap();
        let links = (b'1'..=b'6').contains(&bytes[at + 156]);
        bytes[at + 108..at + 116].copy_from_slice(format!("{:07o}\0", data.uid()).as_bytes());
        bytes[at + 116..at + 124].copy_from_slice(format!("{:07o}\0", data.gid()).as_bytes());
        seal(&mut bytes[at..at + BLOCK]);
        at += BLOCK + if links { 0 } else { usize::try_from(size).unwrap().next_multiple_of(BLOCK) };
    }
    bytes
}

fn run(members: &[Vec<u8>]) -> (Folder, Result<(), String>) {
    let folder = Folder::new();
    let bytes = own([members.concat(), end()].concat(), &folder.0);
    let result = extract(&bytes[..], &folder.0);
    (folder, result)
}

#[test]
fn files_folders_links_and_times() {
    let (folder, result) = run(&[
        member(b"./", b'5', b""),
        member(b"/deep/er/file", b'0', b"hello"),
        member(b"folder", b'5', b""),
        member(b"folder/late", b'0', b""),
        header(b"hard", b'1', 0, b"./deep/er/file"),
        header(b"soft", b'2', 0, b"/nowhere"),
        header(b"fifo", b'6', 0, b""),
    ]);
    result.unwrap();
    let path = |name: &str| folder.0.join(name);
    assert_eq!(fs::read(path("deep/er/file")).unwrap(), b"hello");
    assert_eq!(fs::metadata(path("hard")).unwrap().ino(), fs::metadata(path("deep/er/file")).unwrap().ino());
    assert_eq!(fs::read_link(path("soft")).unwrap(), Path::new("/nowhere"));
    assert_eq!(fs::symlink_metadata(path("soft")).unwrap().mtime(), 0o14_000_000_000);
    let folder_data = fs::metadata(path("folder")).unwrap();
    assert_eq!((folder_data.mtime(), folder_data.permissions().mode() & 0o7777), (0o14_000_000_000, 0o755));
    assert_eq!(fs::metadata(path("fifo")).unwrap().mode() & libc::S_IFMT, libc::S_IFIFO);
}

#[test]
fn later_members_replace_earlier_ones() {
    let (folder, result) = run(&[
        header(b"x", b'2', 0, b"/tmp"),
        member(b"x", b'0', b"file"),
        member(b"y", b'5', b""),
        member(b"y", b'0', b"file"),
        header(b"z", b'6', 0, b""),
        member(b"z", b'0', b"file"),
    ]);
    result.unwrap();
    for name in ["x", "y", "z"] {
        let data = fs::symlink_metadata(folder.0.join(name)).unwrap();
        assert!(data.is_file(), "{name}");
        assert_eq!(fs::read(folder.0.join(name)).unwrap(), b"file");
    }
}

#[test]
fn a_file_is_never_written_through_a_link() {
    let outside = Folder::new();
    fs::write(outside.0.join("victim"), b"untouched").unwrap();
    let folder = Folder::new();
    symlink(outside.0.join("victim"), folder.0.join("f")).unwrap();
    let bytes = own([member(b"f", b'0', b"overwritten"), end()].concat(), &folder.0);
    extract(&bytes[..], &folder.0).unwrap();
    assert_eq!(fs::read(outside.0.join("victim")).unwrap(), b"untouched");
    assert_eq!(fs::read(folder.0.join("f")).unwrap(), b"overwritten");
}

#[test]
fn names_that_leave_the_root_are_refused() {
    for bad in [
        member(b"../x", b'0', b""),
        member(b"a/../../x", b'0', b""),
        member(b"/..", b'5', b""),
        header(b"h", b'1', 0, b"../../etc/passwd"),
    ] {
        let (folder, result) = run(&[bad]);
        assert!(result.unwrap_err().contains(".."));
        assert!(!folder.0.parent().unwrap().join("x").exists());
    }
}

#[test]
fn an_empty_archive_is_not_a_root() {
    let (_folder, result) = run(&[]);
    assert_eq!(result.unwrap_err(), "tar: the archive has no members");
}

#[test]
fn impossible_members_are_errors_that_name_them() {
    for (members, name) in [
        (vec![member(b"d/f", b'0', b""), member(b"d", b'0', b"")], "d:"),
        (vec![header(b"h", b'1', 0, b"missing")], "h:"),
        (vec![header(b"h", b'1', 0, b"./h")], "h:"),
        (vec![member(b".", b'0', b"")], ".:"),
        (vec![member(b"f", b'0', b""), member(b"f/g", b'0', b"")], "f/g:"),
    ] {
        let (_folder, result) = run(&members);
        let text = result.unwrap_err();
        assert!(text.starts_with("tar: ") && text.contains(name), "{text}");
    }
}
