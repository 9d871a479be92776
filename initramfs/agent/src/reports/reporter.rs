// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The agent's side of the process that asks for reports: started before the container, and outside of it.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::failure::{Code, Context, Failure};
use crate::reports::service;
use crate::reports::tsm::Configfs;
use crate::root::mounts;
use crate::sys;
use crate::workload::document::{Document, Reports};

/// Where the workload finds the socket. No document mounts anything in /dev, and no image has a file there.
const SOCKET: &str = "/dev/sev-reports";
/// In the process, the descriptor of its connection to the agent.
const CONTROL_FD: i32 = 3;

pub struct Reporter {
    pub pid: i32,
    control: UnixStream,
    /// Whether the workload gets a socket.
    socket: bool,
    asked: bool,
}

impl Reporter {
    /// The process that this document needs, if it needs one. To be started before the container: what is forked after
    /// that is born into the container's PID namespace.
    pub fn of(document: &Document) -> Result<Option<Self>, Failure> {
        let socket = document.reports == Reports::Socket;
        if !socket && !document.host.reports {
            return Ok(None);
        }
        let internal = Code::Internal;
        mounts::agent_reports().context(internal, "configfs")?;
        let (control, other) = UnixStream::pair().context(internal, "socket pair")?;
        let Some(pid) = sys::fork().context(internal, "fork")? else {
            // Not a word to the log: its descriptor is closed in there.
            let result = become_reporter(&OwnedFd::from(other));
            sys::exit_now(i32::from(result.is_err()));
        };
        Ok(Some(Self { pid, control, socket, asked: false }))
    }

    /// Puts the socket into the container of this reaper, before anything runs there.
    pub fn open(&mut self, reaper: i32) -> Result<(), Failure> {
        let reaper = if self.socket { reaper } else { 0 };
        let mut failed = [1];
        self.control
            .write_all(&reaper.to_le_bytes())
            .and_then(|()| self.control.read_exact(&mut failed))
            .context(Code::Internal, "reports")?;
        if failed != [0] {
            return Err(Failure::new(Code::Rootfs, format!("the socket {SOCKET} could not be made")));
        }
        Ok(())
    }

    /// Asks for a report for the host. One at a time, so that nothing piles up.
    pub fn ask(&mut self, data: &[u8]) -> Result<(), Failure> {
        if self.asked {
            return Err(Failure::protocol("ATTEST before the answer to the last one"));
        }
        self.asked = true;
        let question = [&[u8::try_from(data.len()).unwrap_or(0)], data].concat();
        self.control.write_all(&question).context(Code::Internal, "reports")
    }

    pub fn fd(&self) -> RawFd {
        self.control.as_raw_fd()
    }

    /// The payload of REPORT. The other process writes it as a whole, and it fits into the socket's buffer.
    pub fn answer(&mut self) -> Result<Vec<u8>, Failure> {
        self.asked = false;
        let mut length = [0; 4];
        let mut payload = Vec::new();
        self.control
            .read_exact(&mut length)
            .and_then(|()| {
                payload.resize(usize::try_from(u32::from_le_bytes(length)).unwrap_or(0), 0);
                self.control.read_exact(&mut payload)
            })
            .context(Code::Internal, "the process that asks for reports")?;
        Ok(payload)
    }
}

/// The child's side: returns when the agent is gone, or when something failed.
fn become_reporter(control: &OwnedFd) -> io::Result<()> {
    // The channel to the host is not for this process, nor is this process for those of the container.
    sys::dup_onto(control, CONTROL_FD)?;
    sys::close_from(CONTROL_FD as u32 + 1)?;
    sys::set_undumpable()?;
    let mut control = UnixStream::from(OwnedFd::from(sys::take_fd(CONTROL_FD)));
    let mut reaper = [0; 4];
    control.read_exact(&mut reaper)?;
    let listener = match i32::from_le_bytes(reaper) {
        0 => Ok(None),
        reaper => listen_inside(reaper).map(Some),
    };
    control.write_all(&[u8::from(listener.is_err())])?;
    service::serve(&mut control, listener?.as_ref(), &Configfs::default())
}

/// The socket, in the mount namespace of the container. The interface for reports stays outside.
fn listen_inside(reaper: i32) -> io::Result<UnixListener> {
    let outside = File::open("/proc/self/ns/mnt")?;
    sys::setns(&sys::pidfd_open(reaper)?, libc::CLONE_NEWNS)?;
    let listener = UnixListener::bind(SOCKET);
    let opened = fs::set_permissions(SOCKET, Permissions::from_mode(0o666));
    sys::setns(&outside, libc::CLONE_NEWNS)?;
    let listener = listener?;
    opened?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
