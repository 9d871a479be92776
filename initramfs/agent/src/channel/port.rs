// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The channel to the host: a virtio-serial port, found by its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::sys;

const NAME: &str = "org.sev-artifacts.agent.0";
const PORTS: &str = "/sys/class/virtio-ports";
/// The device announces its ports asynchronously, after PID 1 may have started.
const PORT_WAIT: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(2);
/// For the last words before the power goes off.
const FLUSH_WAIT: Duration = Duration::from_secs(3);
const READ_BYTES: usize = 64 * 1_024;

pub struct Port {
    file: File,
    /// The port reports a hang-up until the host's side is open; only after a first byte does that mean an end.
    heard: bool,
}

/// What a read brought.
pub enum Received {
    Bytes(Vec<u8>),
    Nothing,
    Closed,
}

impl Port {
    /// Waits for the port to appear and opens it.
    pub fn open() -> io::Result<Self> {
        let start = Instant::now();
        loop {
            if let Some(device) = find() {
                let opened =
                    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&device);
                if let Ok(file) = opened {
                    return Ok(Self { file, heard: false });
                }
            }
            if start.elapsed() > PORT_WAIT {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("no virtio port named {NAME}")));
            }
            thread::sleep(RETRY);
        }
    }

    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    pub fn receive(&mut self) -> io::Result<Received> {
        let mut buffer = vec![0; READ_BYTES];
        match self.file.read(&mut buffer) {
            Ok(0) if self.heard => Ok(Received::Closed),
            Ok(0) => Ok(Received::Nothing),
            Ok(count) => {
                self.heard = true;
                buffer.truncate(count);
                Ok(Received::Bytes(buffer))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(Received::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends from the front of `out` as much as goes now.
    pub fn send(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        while !out.is_empty() {
            match self.file.write(out) {
                Ok(count) => drop(out.drain(..count)),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
                {
                    break
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends everything and waits until the host has taken it, for a bounded time.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        let deadline = Instant::now() + FLUSH_WAIT;
        loop {
            let sent = self.send(out).is_ok();
            // Writable again means that the device has taken the last buffer.
            let mut entry = [sys::PollFd { fd: self.fd(), events: libc::POLLOUT, revents: 0 }];
            let polled = sys::poll(&mut entry, 100).is_ok();
            let writable = entry.iter().any(|entry| entry.revents & libc::POLLOUT != 0);
            if !sent || !polled || (out.is_empty() && writable) || Instant::now() > deadline {
                return;
            }
        }
    }
}

fn find() -> Option<String> {
    fs::read_dir(PORTS).ok()?.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim_end() == NAME).then(|| format!("/dev/{}", entry.file_name().to_string_lossy()))
    })
}
