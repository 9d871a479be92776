// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The container's root file system: from the disk with the serial `rootfs` to a mount at /newroot.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{lchown, MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::channel::message::{Container, RootKind};
use crate::failure::{Code, Context, Failure};
use crate::root::extract;
use crate::root::mounts::ensure_folder;
use crate::root::verity::Verity;
use crate::sys;

/// Outside /run, which is detached before the root is entered.
pub const NEW_ROOT: &str = "/newroot";
const LOWER: &str = "/run/lower";
const WRITABLE: &str = "/run/writable";
const SERIAL: &str = "rootfs";
const READ_BYTES: usize = 256 * 1_024;
/// The disk is there when PID 1 starts; hot-plugging it is not supported, a slow probe is.
const DISK_WAIT: Duration = Duration::from_secs(5);

struct Disk {
    path: String,
    bytes: u64,
}

/// Mounts the root at `NEW_ROOT`. Runs in the container's mount namespace, before the agent's mounts are detached.
pub fn build(request: &Container, verity: Option<&Verity>) -> Result<(), Failure> {
    if verity.is_some() && request.root != RootKind::Erofs {
        return Err(Failure::new(Code::Rootfs, "the measured command line demands EROFS behind dm-verity"));
    }
    let disk = find_disk().context(Code::Rootfs, "disk with serial rootfs")?;
    if request.image_bytes > disk.bytes {
        return Err(Failure::new(Code::BadValue, "image is longer than the disk"));
    }
    ensure_folder(NEW_ROOT, 0o755).context(Code::Rootfs, NEW_ROOT)?;
    match request.root {
        RootKind::Tar => {
            let bytes = if request.image_bytes == 0 { disk.bytes } else { request.image_bytes };
            mount_tmpfs(NEW_ROOT, request.writable_bytes, libc::MS_NODEV)
                .context(Code::Rootfs, "tmpfs for the root")?;
            extract_apart(&disk.path, bytes)
        }
        RootKind::Erofs => {
            let device = match verity {
                Some(verity) => verity.open(&disk.path, disk.bytes)?,
                None => disk.path,
            };
            overlay(&device, request.writable_bytes).context(Code::Rootfs, "EROFS root")
        }
    }
}

fn find_disk() -> io::Result<Disk> {
    let start = Instant::now();
    loop {
        if let Some(name) = disk_name()? {
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
fn disk_name() -> io::Result<Option<String>> {
    let mut found = None;
    for entry in fs::read_dir("/sys/block")? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if !name.starts_with("vd") {
            continue;
        }
        let serial = fs::read_to_string(format!("/sys/block/{name}/serial")).unwrap_or_default();
        if serial.trim_end_matches(['\n', '\0']) == SERIAL && found.replace(name).is_some() {
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

fn overlay(device: &str, writable_bytes: u64) -> io::Result<()> {
    ensure_folder(LOWER, 0o755)?;
    ensure_folder(WRITABLE, 0o755)?;
    sys::mount(device, LOWER, Some("erofs"), libc::MS_RDONLY | libc::MS_NODEV, None)?;
    mount_tmpfs(WRITABLE, writable_bytes, libc::MS_NODEV)?;
    let (upper, work) = (format!("{WRITABLE}/upper"), format!("{WRITABLE}/work"));
    ensure_folder(&upper, 0o755)?;
    ensure_folder(&work, 0o755)?;
    // The upper directory's own mode and owner become those of /.
    let root = fs::metadata(LOWER)?;
    lchown(&upper, Some(root.uid()), Some(root.gid()))?;
    fs::set_permissions(&upper, fs::Permissions::from_mode(root.mode() & 0o7777))?;
    let data = format!("lowerdir={LOWER},upperdir={upper},workdir={work}");
    sys::mount("overlay", NEW_ROOT, Some("overlay"), libc::MS_NODEV, Some(&data))
}

/// Unpacks the archive in a child that sees nothing but the new root and the open disk.
fn extract_apart(device: &str, bytes: u64) -> Result<(), Failure> {
    let disk = File::open(device).context(Code::Rootfs, device)?;
    let (report, child_report) = sys::pipe().context(Code::Internal, "pipe")?;
    if sys::fork().context(Code::Internal, "fork")?.is_none() {
        let source = BufReader::with_capacity(READ_BYTES, disk.take(bytes));
        let result = enter_jail()
            .map_err(|error| error.to_string())
            .and_then(|()| extract::extract(source, Path::new("/")))
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

fn enter_jail() -> io::Result<()> {
    std::os::unix::fs::chroot(NEW_ROOT)?;
    std::env::set_current_dir("/")?;
    sys::clear_umask();
    Ok(())
}
