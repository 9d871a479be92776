// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The container's root file system: from the disk with the serial `rootfs` to a mount at /newroot.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{lchown, MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Code, Context, Failure};
use crate::root::extract;
use crate::root::mounts::ensure_folder;
use crate::root::verity::Verity;
use crate::sys;
use crate::workload::sha256::{self, Hashed};

/// Outside /run, which is detached before the root is entered.
pub const NEW_ROOT: &str = "/newroot";
const LOWER: &str = "/run/lower";
const WRITABLE: &str = "/run/writable";
const SERIAL: &str = "rootfs";
const READ_BYTES: usize = 256 * 1_024;
/// The disk is there when PID 1 starts; hot-plugging it is not supported, a slow probe is.
const DISK_WAIT: Duration = Duration::from_secs(5);

/// What is on the disk, and by what it is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `bytes` 0: the whole disk; `sha256`: of so many bytes, if it must be that one.
    Tar { bytes: u64, sha256: Option<[u8; sha256::BYTES]> },
    /// `bytes`: what the disk must have at least.
    Erofs { bytes: u64, verity: Option<Verity> },
}

impl Source {
    pub fn is_behind_verity(&self) -> bool {
        matches!(self, Self::Erofs { verity: Some(_), .. })
    }
}

pub struct Disk {
    pub path: String,
    pub bytes: u64,
}

/// Mounts the root at `NEW_ROOT`. Runs in the container's mount namespace, before the agent's mounts are detached.
pub fn build(source: &Source, writable_bytes: u64) -> Result<(), Failure> {
    let disk = find_disk(SERIAL).context(Code::Rootfs, "disk with serial rootfs")?;
    let (Source::Tar { bytes, .. } | Source::Erofs { bytes, .. }) = source;
    if *bytes > disk.bytes {
        return Err(Failure::new(Code::BadValue, "image is longer than the disk"));
    }
    ensure_folder(NEW_ROOT, 0o755).context(Code::Rootfs, NEW_ROOT)?;
    match source {
        Source::Tar { bytes, sha256 } => {
            let bytes = if *bytes == 0 { disk.bytes } else { *bytes };
            mount_tmpfs(NEW_ROOT, writable_bytes, libc::MS_NODEV)
                .context(Code::Rootfs, "tmpfs for the root")?;
            let file = File::open(&disk.path).context(Code::Rootfs, &disk.path)?;
            extract_apart(file, bytes, sha256.as_ref(), NEW_ROOT)
        }
        Source::Erofs { verity, .. } => {
            let layers = match verity {
                Some(verity) => verity.open(&disk.path, disk.bytes)?,
                None => vec![disk.path],
            };
            overlay(&layers, writable_bytes).context(Code::Rootfs, "EROFS root")
        }
    }
}

pub fn find_disk(serial: &str) -> io::Result<Disk> {
    let start = Instant::now();
    loop {
        if let Some(name) = disk_name(serial)? {
            let path = format!("/dev/{name}");
            let bytes = File::open(&path)?.seek(SeekFrom::End(0))?;
            return Ok(Disk { path, bytes });
        }
        if start.elapsed() > DISK_WAIT {
            return Err(io::ErrorKind::NotFound.into());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The one virtio disk with the right serial; two of them are refused, not guessed between.
fn disk_name(wanted: &str) -> io::Result<Option<String>> {
    let mut found = None;
    for entry in fs::read_dir("/sys/block")? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if !name.starts_with("vd") {
            continue;
        }
        let serial = fs::read_to_string(format!("/sys/block/{name}/serial")).unwrap_or_default();
        if serial.trim_end_matches(['\n', '\0']) == wanted && found.replace(name).is_some() {
            return Err(io::Error::other("more than one"));
        }
    }
    Ok(found)
}

/// A tmpfs with a limit in bytes; 0 leaves the kernel's default, half of the RAM.
fn mount_tmpfs(target: &str, bytes: u64, flags: u64) -> io::Result<()> {
    let data = if bytes == 0 { "mode=0755".to_owned() } else { format!("mode=0755,size={bytes}") };
    sys::mount("tmpfs", target, Some("tmpfs"), flags, Some(&data))
}

/// Stacks the EROFS images on `layers`, the lowest first, below a tmpfs.
fn overlay(layers: &[String], writable_bytes: u64) -> io::Result<()> {
    ensure_folder(LOWER, 0o755)?;
    ensure_folder(WRITABLE, 0o755)?;
    let mut lower = Vec::new();
    for (number, device) in layers.iter().enumerate() {
        // Short: the options of one mount have a page, 4,096 bytes, and there may be 127 layers.
        let target = format!("{LOWER}/{number}");
        ensure_folder(&target, 0o755)?;
        sys::mount(device, &target, Some("erofs"), libc::MS_RDONLY | libc::MS_NODEV, None)
            .map_err(|error| io::Error::new(error.kind(), format!("layer {}: {error}", number + 1)))?;
        lower.push(target);
    }
    mount_tmpfs(WRITABLE, writable_bytes, libc::MS_NODEV)?;
    let (upper, work) = (format!("{WRITABLE}/upper"), format!("{WRITABLE}/work"));
    ensure_folder(&upper, 0o755)?;
    ensure_folder(&work, 0o755)?;
    // The upper directory's own mode and owner become those of /.
    lower.reverse();
    let root = fs::metadata(lower.first().ok_or(io::ErrorKind::InvalidInput)?)?;
    lchown(&upper, Some(root.uid()), Some(root.gid()))?;
    fs::set_permissions(&upper, fs::Permissions::from_mode(root.mode() & 0o7777))?;
    // Whatever the kernel's defaults: a layer shows what it has at its place, never what lies elsewhere. And all files
    // have one device number, whichever layer they are in, as where container engines keep them in one file system.
    let data = format!(
        "lowerdir={},upperdir={upper},workdir={work},redirect_dir=nofollow,metacopy=off,xino=on",
        lower.join(":")
    );
    sys::mount("overlay", NEW_ROOT, Some("overlay"), libc::MS_NODEV, Some(&data))
}

/// Unpacks the archive in a child that sees nothing but the folder that it fills and the open disk.
pub fn extract_apart(
    disk: File,
    bytes: u64,
    expected: Option<&[u8; sha256::BYTES]>,
    folder: &str,
) -> Result<(), Failure> {
    let (report, child_report) = sys::pipe().context(Code::Internal, "pipe")?;
    if sys::fork().context(Code::Internal, "fork")?.is_none() {
        let source = disk.take(bytes);
        let result = enter_jail(folder)
            .map_err(|error| error.to_string())
            .and_then(|()| match expected {
                None => extract::extract(BufReader::with_capacity(READ_BYTES, source), Path::new("/")),
                Some(digest) => extract_hashed(source, bytes, digest),
            })
            .err()
            .unwrap_or_default();
        // No text is success; a child that dies writes none, so success needs its own byte.
        let answer = if result.is_empty() { "ok".to_owned() } else { format!("!{result}") };
        let _ = io::Write::write_all(&mut File::from(child_report), answer.as_bytes());
        sys::exit_now(0);
    }
    drop(child_report);
    let mut answer = Vec::new();
    File::from(report).take(2_048).read_to_end(&mut answer).context(Code::Internal, "pipe")?;
    match answer.split_first() {
        Some((b'o', _)) => Ok(()),
        Some((_, text)) => Err(Failure::new(Code::Rootfs, String::from_utf8_lossy(text))),
        None => Err(Failure::new(Code::Rootfs, "tar: the unpacking process died")),
    }
}

/// What is unpacked is what is hashed: the disk may give other bytes when it is read again.
fn extract_hashed(source: impl Read, bytes: u64, expected: &[u8; sha256::BYTES]) -> Result<(), String> {
    let mut source = BufReader::with_capacity(READ_BYTES, Hashed::new(source));
    let unpacked = extract::extract(&mut source, Path::new("/"));
    // The whole image counts, also what the reader did not want. Of other bytes nothing else is worth saying.
    let (digest, length) = source.into_inner().finish().map_err(|error| format!("tar: {error}"))?;
    if length != bytes || digest != *expected {
        let (found, wanted) = (sha256::to_hex(&digest), sha256::to_hex(expected));
        return Err(format!(
            "tar: SHA-256 of {length} bytes is {found}, the workload document says {wanted}"
        ));
    }
    unpacked
}

fn enter_jail(folder: &str) -> io::Result<()> {
    std::os::unix::fs::chroot(folder)?;
    std::env::set_current_dir("/")?;
    sys::set_umask(0);
    Ok(())
}
