// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The container: a process of its own in new namespaces that builds the root, enters it and then only reaps.
//!
//! That process is PID 1 of the container's PID namespace. Workloads are forked by the agent, so that it gets their
//! wait status itself; they land in the same PID namespace and enter the others through a pidfd of the reaper.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::failure::{Code, Context, Failure};
use crate::log::log;
use crate::process::command::Capabilities;
use crate::root::protect::{self, Protected};
use crate::root::rootfs::{self, Source};
use crate::root::{folders, mounts, sysctls};
use crate::sys::{self, credentials, terminal};
use crate::workload::document::{Folder, Mount, Sysctl};

/// Relative to the agent's cgroup root; holds every process of the container.
const CGROUP: &str = "/sys/fs/cgroup/container";
const DEFAULT_HOSTNAME: &[u8] = b"sev-guest";
/// In the reaper, the descriptor of its report.
const REPORT_FD: i32 = 3;
/// In the reaper, once the root is built, the folder of the container's terminals.
const TERMINALS_FD: i32 = 4;
/// All namespaces but PID, which a process can only be born into.
pub const NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP;

/// What the container is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub root: Source,
    /// Bytes of the writable tmpfs, 0 for half of the RAM.
    pub writable_bytes: u64,
    /// Empty for the default.
    pub hostname: Vec<u8>,
    pub mounts: Vec<Mount>,
    /// Where, and what, of the files that the host supplied.
    pub files: Vec<(String, Vec<u8>)>,
    /// Whether the processor's report interface is there.
    pub reports: bool,
    pub protected: Protected,
    pub folders: Vec<Folder>,
    /// Made where it is missing, as engines do; empty: nothing is.
    pub cwd: CString,
    pub sysctls: Vec<Sysctl>,
    /// Whether there is a network.
    pub ethernet: bool,
}

/// The running container as the agent sees it.
pub struct Container {
    pub reaper: i32,
    pub pidfd: OwnedFd,
    /// The folder of its terminals, once the root is ready.
    terminals: Option<OwnedFd>,
}

impl Container {
    /// Takes what it needs of the reaper, before anything else runs in there.
    pub fn root_is_ready(&mut self) -> Result<(), Failure> {
        let taken = sys::descriptor_of(&self.pidfd, TERMINALS_FD).context(Code::Internal, "/dev/pts")?;
        self.terminals = Some(taken);
        Ok(())
    }

    /// A new terminal of this container: the agent's end, and the process's.
    pub fn terminal(&self) -> std::io::Result<(OwnedFd, OwnedFd)> {
        self.terminals.as_ref().map_or(Err(std::io::ErrorKind::NotFound.into()), terminal::open)
    }
}

/// Starts the reaper. It reports on the returned pipe: u16 code (0: the root is ready) and a text, then closes it.
pub fn start(request: &Request) -> Result<(Container, OwnedFd), Failure> {
    let (report, child_report) = sys::pipe().context(Code::Internal, "pipe")?;
    // For the agent this only decides where its future children are born.
    sys::unshare(libc::CLONE_NEWPID).context(Code::Internal, "PID namespace")?;
    let Some(reaper) = sys::fork().context(Code::Internal, "fork")? else {
        become_reaper(request, &child_report);
    };
    let pidfd = sys::pidfd_open(reaper).context(Code::Internal, "pidfd")?;
    log!("container reaper is process {reaper}");
    Ok((Container { reaper, pidfd, terminals: None }, report))
}

/// The child's side; never returns.
fn become_reaper(request: &Request, report: &OwnedFd) -> ! {
    // Nothing of the agent, above all not the channel to the host, stays open in here.
    if sys::dup_onto(report, REPORT_FD).is_err() || sys::close_from(REPORT_FD as u32 + 1).is_err() {
        sys::exit_now(1);
    }
    let mut report = sys::take_fd(REPORT_FD);
    let result = set_up(request).and_then(|()| {
        let folder = File::open("/dev/pts").context(Code::Internal, "/dev/pts")?;
        sys::dup_onto(&folder, TERMINALS_FD).context(Code::Internal, "/dev/pts")?;
        // It may be that very descriptor.
        std::mem::forget(folder);
        // From here on it only waits; whoever gets hold of it, with the capability to trace, gets nothing.
        credentials::bound_capabilities(0)
            .and_then(|()| credentials::set_capabilities(&Capabilities::default()))
            .context(Code::Internal, "capabilities")
    });
    let _ = report.write_all(&encode_report(result.as_ref().err()));
    if result.is_err() {
        sys::exit_now(1);
    }
    drop(report);
    loop {
        // With no child at all the wait fails at once; the signal of the next orphan's end stays pending.
        if sys::wait_any(true).is_none() {
            sys::wait_for_child_signal();
        }
    }
}

fn set_up(request: &Request) -> Result<(), Failure> {
    let internal = Code::Internal;
    // A process of the container, even with uid 0, must not get at this one through /proc/1.
    sys::set_undumpable().context(internal, "prctl")?;
    join_cgroup().context(internal, "cgroup")?;
    sys::unshare(NAMESPACES).context(internal, "namespaces")?;
    let hostname = if request.hostname.is_empty() { DEFAULT_HOSTNAME } else { &request.hostname };
    sys::set_hostname(hostname).context(internal, "host name")?;
    sysctls::set(&request.sysctls, request.ethernet)?;
    mounts::make_private().context(internal, "private mounts")?;
    rootfs::build(&request.root, request.writable_bytes)?;
    let opened = folders::open(&request.folders)?;
    std::env::set_current_dir(rootfs::NEW_ROOT).context(Code::Rootfs, rootfs::NEW_ROOT)?;
    mounts::detach_agent().context(internal, "detach")?;
    mounts::enter_working_directory().context(Code::Rootfs, "enter the root")?;
    mounts::container(request.reports)?;
    mounts::of_document(&request.mounts)?;
    let placed = folders::place(opened)?;
    mounts::supplied(&request.files, &placed)?;
    if let Some(cwd) = request.cwd.to_str().ok().filter(|cwd| !cwd.is_empty() && !Path::new(cwd).is_dir()) {
        mounts::ensure_folders(cwd).context(Code::Rootfs, "working directory")?;
        placed.check(cwd)?;
    }
    protect::apply(&request.protected, &placed)
}

/// Moves the calling process into the container's cgroup. A kernel without cgroups has nothing to move in.
pub fn join_cgroup() -> std::io::Result<()> {
    if !fs::exists("/sys/fs/cgroup/cgroup.procs")? {
        return Ok(());
    }
    mounts::ensure_folder(CGROUP, 0o755)?;
    fs::write(format!("{CGROUP}/cgroup.procs"), "0")
}

/// A forked child's report: u16 code, 0 for success, and text.
pub fn encode_report(failure: Option<&Failure>) -> Vec<u8> {
    let mut bytes = failure.map_or(0, |failure| failure.code as u16).to_le_bytes().to_vec();
    if let Some(failure) = failure {
        // Far below PIPE_BUF, so that one write is enough and cannot block.
        bytes
            .extend_from_slice(failure.message.as_bytes().get(..1_000).unwrap_or(failure.message.as_bytes()));
    }
    bytes
}

/// Reads a report that was written at once. `None` is the end of the pipe without a report.
pub fn read_report(pipe: &mut File) -> std::io::Result<Option<Result<(), Failure>>> {
    let mut buffer = [0; 1_024];
    let count = std::io::Read::read(pipe, &mut buffer)?;
    let bytes = buffer.get(..count).unwrap_or_default();
    let Some((code, text)) = bytes.split_first_chunk() else { return Ok(None) };
    Ok(Some(match u16::from_le_bytes(*code) {
        0 => Ok(()),
        code => Err(Failure::new(Code::from_number(code), String::from_utf8_lossy(text))),
    }))
}
