// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! One process of the container: its streams, their windows, its end. Writes messages, never touches the port.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::channel::frame;
use crate::channel::message::{self, kind, Size};
use crate::channel::reply::{self, Exit};
use crate::failure::Failure;
use crate::process::container;
use crate::process::spawn::Spawned;
use crate::sys::{self, terminal};
use crate::workload::process::Doors;

/// Initial stdin window, and so the most stdin that the agent ever holds for one process.
pub const STDIN_WINDOW: u32 = 256 * 1_024;
/// Consumed stdin is granted anew in pieces of this size; the host keeps three quarters of the window meanwhile.
const GRANT_BYTES: u32 = STDIN_WINDOW / 4;
/// Output is read in pieces of at most this; the virtio port takes 32 KiB at a time.
const OUTPUT_BYTES: usize = 32 * 1_024 - frame::HEADER_BYTES;
/// How long other processes may keep the pipes of an ended process open.
const DRAIN: Duration = Duration::from_secs(1);

/// stdin of a process, from the host to the pipe.
struct Input {
    pipe: Option<File>,
    pending: Vec<u8>,
    /// Bytes that the host may still send.
    window: u32,
    /// Bytes consumed but not yet granted anew.
    consumed: u32,
    at_end: bool,
}

/// stdout or stderr of a process, from the pipe to the host.
struct Output {
    pipe: Option<File>,
    kind: u8,
    /// Bytes that the agent may still send.
    window: u32,
    /// Whether the host gets it; otherwise it is read and thrown away.
    relayed: bool,
    /// After the end of the process: bytes of its own that are still in the pipe.
    owed: u64,
}

/// What a poll event on one of a process's descriptors is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Report,
    Stdin,
    Output(usize),
}

/// How far a process is.
pub enum Progress {
    Running,
    /// EXITED or ERROR is written: nothing will come for this id any more.
    Finished,
}

pub struct Process {
    pub id: u32,
    pub pid: i32,
    pub doors: Doors,
    report: Option<File>,
    input: Input,
    outputs: [Output; 2],
    terminal: Option<File>,
    ended: Option<(Exit, Instant)>,
}

impl Process {
    pub fn new(id: u32, spawned: Spawned, doors: Doors, stdin_at_end: bool, output_window: u32) -> Self {
        let Spawned { pid, report, stdin, stdout, stderr, terminal } = spawned;
        let stdin_at_end = stdin_at_end || !doors.stdin;
        let relayed = doors.output;
        let pipe = (!stdin_at_end).then_some(stdin);
        let output = |pipe, kind| Output { pipe, kind, window: output_window, relayed, owed: 0 };
        Self {
            id,
            pid,
            doors,
            report: Some(report),
            input: Input {
                pipe,
                pending: Vec::new(),
                window: STDIN_WINDOW,
                consumed: 0,
                at_end: stdin_at_end,
            },
            outputs: [output(Some(stdout), kind::STDOUT), output(stderr, kind::STDERR)],
            terminal,
            ended: None,
        }
    }

    /// Bytes from the host for stdin. A failure is a violation.
    pub fn stdin(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let input = &mut self.input;
        if input.at_end {
            return Err(Failure::protocol(format!("STDIN after the end of stdin of process {}", self.id)));
        }
        input.window = u32::try_from(bytes.len())
            .ok()
            .and_then(|count| input.window.checked_sub(count))
            .ok_or_else(|| Failure::protocol(format!("STDIN beyond the window of process {}", self.id)))?;
        if input.pipe.is_some() {
            input.pending.extend_from_slice(bytes);
        }
        Ok(())
    }

    pub fn stdin_eof(&mut self) -> Result<(), Failure> {
        if self.input.at_end {
            return Err(Failure::protocol(format!("second end of stdin of process {}", self.id)));
        }
        self.input.at_end = true;
        if self.input.pending.is_empty() {
            self.input.pipe = None;
        }
        Ok(())
    }

    /// More room for stdout (1) or stderr (2).
    pub fn grant(&mut self, stream: u8, bytes: u32) -> Result<(), Failure> {
        let output = usize::from(stream).checked_sub(1).and_then(|index| self.outputs.get_mut(index));
        output
            .and_then(|output| {
                output.window = output.window.checked_add(bytes).filter(|sum| *sum <= message::MAX_WINDOW)?;
                Some(())
            })
            .ok_or_else(|| Failure::protocol(format!("WINDOW beyond the limit for process {}", self.id)))
    }

    /// Whether it is the running process of that number.
    pub fn is(&self, pid: i32) -> bool {
        self.pid == pid && self.ended.is_none()
    }

    /// Sends a signal, unless the process is known to have ended (its number may be another's by now).
    pub fn signal(&self, number: i32) {
        if self.ended.is_none() {
            let _ = sys::kill(self.pid, number);
        }
    }

    /// Changes the terminal's size, if there is one; the kernel tells the programs in its foreground.
    pub fn resize(&self, size: Size) {
        if let (Some(terminal), None) = (&self.terminal, self.ended) {
            let _ = terminal::resize(terminal, size.rows, size.columns);
        }
    }

    /// The process has been reaped.
    pub fn reaped(&mut self, exit: Exit) {
        for output in &mut self.outputs {
            output.owed = output.pipe.as_ref().and_then(|pipe| sys::readable_bytes(pipe).ok()).unwrap_or(0);
        }
        self.ended = Some((exit, Instant::now() + DRAIN));
    }

    /// The descriptors to poll, with the events wanted. Output only while it can go out and `output_room` says so.
    pub fn sources(&self, output_room: bool) -> Vec<(Source, RawFd, i16)> {
        let mut list = Vec::new();
        if let Some(pipe) = &self.report {
            list.push((Source::Report, pipe.as_raw_fd(), libc::POLLIN));
        }
        if let Some(pipe) = &self.input.pipe {
            // Without pending bytes only the reader's disappearance is of interest, which is always reported.
            let events = if self.input.pending.is_empty() { 0 } else { libc::POLLOUT };
            list.push((Source::Stdin, pipe.as_raw_fd(), events));
        }
        for (index, output) in self.outputs.iter().enumerate() {
            if let (Some(pipe), true) = (&output.pipe, !output.relayed || (output_room && output.window > 0))
            {
                list.push((Source::Output(index), pipe.as_raw_fd(), libc::POLLIN));
            }
        }
        list
    }

    /// When this process needs attention without any event.
    pub fn deadline(&self) -> Option<Instant> {
        self.ended.map(|(_, deadline)| deadline)
    }

    /// Handles one poll event; messages go to `out`.
    pub fn event(&mut self, source: Source, out: &mut Vec<u8>) -> Progress {
        match source {
            Source::Report => return self.read_report(out),
            Source::Stdin => self.write_stdin(out),
            Source::Output(index) => {
                if let Some(output) = self.outputs.get_mut(index) {
                    output.forward(self.id, out);
                }
            }
        }
        Progress::Running
    }

    /// STARTED or ERROR, once exec has happened or failed.
    fn read_report(&mut self, out: &mut Vec<u8>) -> Progress {
        let Some(mut pipe) = self.report.take() else { return Progress::Running };
        if let Ok(Some(Err(failure))) = container::read_report(&mut pipe) {
            reply::encode_error(out, self.id, &failure);
            return Progress::Finished;
        }
        reply::encode_started(out, self.id, self.pid);
        Progress::Running
    }

    fn write_stdin(&mut self, out: &mut Vec<u8>) {
        let input = &mut self.input;
        let Some(pipe) = &mut input.pipe else { return };
        match pipe.write(&input.pending) {
            Ok(count) if !input.pending.is_empty() => {
                input.pending.drain(..count);
                input.consumed += u32::try_from(count).unwrap_or(0);
                if input.consumed >= GRANT_BYTES && !input.at_end {
                    reply::encode_stdin_window(out, self.id, input.consumed);
                    input.window += input.consumed;
                    input.consumed = 0;
                }
                if input.at_end && input.pending.is_empty() {
                    input.pipe = None;
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // An event without pending bytes, or a failed write: nobody will ever read this pipe again.
            _ => {
                input.pipe = None;
                input.pending = Vec::new();
                if !input.at_end {
                    reply::encode_stdin_window(out, self.id, 0);
                }
            }
        }
    }

    /// EXITED, when everything that precedes it has been written.
    pub fn finish(&mut self, now: Instant, out: &mut Vec<u8>) -> Progress {
        let Some((exit, deadline)) = self.ended else { return Progress::Running };
        for output in &mut self.outputs {
            output.settle(now >= deadline);
        }
        if self.report.is_some() || self.outputs.iter().any(|output| output.pipe.is_some()) {
            return Progress::Running;
        }
        reply::encode_exited(out, self.id, exit);
        Progress::Finished
    }
}

impl Output {
    /// Moves one piece from the pipe into a message.
    fn forward(&mut self, id: u32, out: &mut Vec<u8>) {
        let Some(pipe) = &mut self.pipe else { return };
        let window = if self.relayed { usize::try_from(self.window).unwrap_or(0) } else { OUTPUT_BYTES };
        let limit = window.min(OUTPUT_BYTES);
        let mut buffer = vec![0; limit];
        match pipe.read(&mut buffer) {
            Ok(0) if limit > 0 => self.pipe = None,
            Ok(count) => {
                if self.relayed {
                    frame::encode(out, self.kind, id, buffer.get(..count).unwrap_or_default());
                    self.window -= u32::try_from(count).unwrap_or(0);
                }
                self.owed = self.owed.saturating_sub(count as u64);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.pipe = None,
        }
    }

    /// After the end of the process: closes the pipe when nothing that has to be sent is left in it. A stream without
    /// window is not polled, so this looks for its end too.
    fn settle(&mut self, expired: bool) {
        let Some(pipe) = &self.pipe else { return };
        if self.owed > 0 {
            return;
        }
        let mut probe = [sys::PollFd { fd: pipe.as_raw_fd(), events: 0, revents: 0 }];
        let hung_up =
            sys::poll(&mut probe, 0).is_ok() && probe.iter().any(|entry| entry.revents & libc::POLLHUP != 0);
        if hung_up {
            // No writer is left: what is in the pipe is all there will be, and all of it is sent.
            self.owed = sys::readable_bytes(pipe).unwrap_or(0);
        }
        if self.owed == 0 && (hung_up || expired) {
            self.pipe = None;
        }
    }
}
