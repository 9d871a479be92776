// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Windows and the end of a process, on real pipes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::channel::frame::{Decoder, Frame};
use crate::channel::message::{kind, MAX_WINDOW};
use crate::channel::reply::Exit;
use crate::process::live::{Process, Progress, Source, STDIN_WINDOW};
use crate::process::spawn::Spawned;
use crate::sys;
use crate::workload::process::Doors;

/// A process without a process: the far ends of its pipes are in the test's hands.
struct Far {
    process: Process,
    stdin: Option<File>,
    stdout: Option<File>,
    out: Vec<u8>,
}

fn make(window: u32) -> Far {
    behind(Doors::all(), window)
}

fn behind(doors: Doors, window: u32) -> Far {
    let pipe = || -> (OwnedFd, OwnedFd) { sys::pipe().unwrap() };
    let (report, far_report) = pipe();
    let (far_stdin, stdin) = pipe();
    let (stdout, far_stdout) = pipe();
    let (stderr, far_stderr) = pipe();
    drop((far_report, far_stderr));
    for end in [&stdin, &stdout, &stderr] {
        sys::set_nonblocking(end).unwrap();
    }
    let spawned = Spawned {
        pid: i32::MAX,
        report: report.into(),
        stdin: stdin.into(),
        stdout: stdout.into(),
        stderr: Some(stderr.into()),
        terminal: None,
    };
    let mut far = Far {
        process: Process::new(5, spawned, doors, false, window),
        stdin: Some(far_stdin.into()),
        stdout: Some(far_stdout.into()),
        out: Vec::new(),
    };
    assert_eq!(far.turn(), [kind::STARTED]);
    far
}

impl Far {
    /// One round of the event loop; the types of the messages that it brought.
    fn turn(&mut self) -> Vec<u8> {
        self.frames().iter().map(|frame| frame.kind).collect()
    }

    fn frames(&mut self) -> Vec<Frame> {
        let list = self.process.sources(true);
        let mut fds: Vec<sys::PollFd> =
            list.iter().map(|(_, fd, events)| sys::PollFd { fd: *fd, events: *events, revents: 0 }).collect();
        sys::poll(&mut fds, 0).unwrap();
        for (entry, (source, _, _)) in fds.iter().zip(list) {
            if entry.revents != 0 {
                assert!(matches!(self.process.event(source, &mut self.out), Progress::Running));
            }
        }
        let mut decoder = Decoder::default();
        decoder.push(&std::mem::take(&mut self.out));
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    fn finish(&mut self, later: u64) -> Vec<u8> {
        self.process.finish(Instant::now() + Duration::from_secs(later), &mut self.out);
        self.frames().iter().map(|frame| frame.kind).collect()
    }
}

const DONE: Exit = Exit { by_signal: false, core: false, code: 0 };

#[test]
fn output_stays_within_its_window() {
    let mut far = make(10);
    far.stdout.as_mut().unwrap().write_all(b"0123456789abcdef").unwrap();
    assert_eq!(far.frames()[0].payload, b"0123456789");
    assert!(far.frames().is_empty());
    far.process.grant(1, 4).unwrap();
    assert_eq!(far.frames()[0].payload, b"abcd");
    assert!(far.process.grant(1, MAX_WINDOW).is_ok());
    assert!(far.process.grant(1, 1).is_err());
    assert!(far.process.grant(0, 1).is_err());
    assert!(far.process.grant(3, 1).is_err());
}

#[test]
fn stdin_beyond_its_window_is_a_violation() {
    let mut far = make(10);
    let window = usize::try_from(STDIN_WINDOW).unwrap();
    far.process.stdin(&vec![0; window]).unwrap();
    far.process.stdin(b"").unwrap();
    assert!(far.process.stdin(b"x").is_err());
}

#[test]
fn consumed_stdin_is_granted_anew_and_arrives_unchanged() {
    let mut far = make(10);
    let sent: Vec<u8> = (0..STDIN_WINDOW).map(|at| (at % 251).to_le_bytes()[0]).collect();
    far.process.stdin(&sent).unwrap();
    far.process.stdin_eof().unwrap();
    assert!(far.process.stdin_eof().is_err());
    assert!(far.process.stdin(b"").is_err());
    let mut got = Vec::new();
    while got.len() < sent.len() {
        assert!(far.turn().is_empty()); // after the end nothing is granted any more
        let mut buffer = vec![0; 65_536];
        let count = far.stdin.as_mut().unwrap().read(&mut buffer).unwrap();
        got.extend_from_slice(&buffer[..count]);
    }
    assert!(got == sent);
    assert_eq!(far.stdin.as_mut().unwrap().read(&mut [0; 1]).unwrap(), 0);

    let mut far = make(10);
    far.process.stdin(&sent).unwrap();
    let mut granted = 0;
    let mut taken = 0;
    while taken < sent.len() {
        for frame in far.frames() {
            assert_eq!((frame.kind, frame.payload[0]), (kind::WINDOW, 0));
            granted += u32::from_le_bytes(frame.payload[4..].try_into().unwrap());
        }
        taken += far.stdin.as_mut().unwrap().read(&mut vec![0; 65_536]).unwrap();
    }
    assert_eq!(granted, STDIN_WINDOW);
    far.process.stdin(&sent).unwrap();
}

#[test]
fn closed_stdin_is_reported_once() {
    let mut far = make(10);
    far.process.stdin(b"lost").unwrap();
    far.stdin = None;
    let frames = far.frames();
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].kind, &frames[0].payload[..]), (kind::WINDOW, &[0; 8][..]));
    assert!(far.turn().is_empty());
    far.process.stdin(b"dropped").unwrap();
    assert!(far.turn().is_empty());
}

#[test]
fn idle_stdin_notices_that_its_reader_went() {
    let mut far = make(10);
    assert!(far.turn().is_empty());
    far.stdin = None;
    assert_eq!(far.turn(), [kind::WINDOW]);
}

#[test]
fn the_end_comes_after_all_output() {
    let mut far = make(4);
    far.stdout.take().unwrap().write_all(b"0123456789").unwrap();
    far.process.reaped(DONE);
    assert_eq!(far.turn(), [kind::STDOUT]);
    // Six bytes wait for a window, for however long.
    assert!(far.finish(60).is_empty());
    far.process.grant(1, 100).unwrap();
    assert_eq!(far.turn(), [kind::STDOUT]);
    assert_eq!(far.finish(0), [kind::EXITED]);
}

#[test]
fn an_exhausted_window_does_not_hide_the_end() {
    let mut far = make(4);
    far.stdout.take().unwrap().write_all(b"0123").unwrap();
    assert_eq!(far.turn(), [kind::STDOUT]);
    far.process.reaped(DONE);
    far.turn();
    assert_eq!(far.finish(0), [kind::EXITED]);
}

#[test]
fn a_grandchild_keeps_the_pipes_for_a_second_only() {
    let mut far = make(100);
    far.stdout.as_mut().unwrap().write_all(b"own").unwrap();
    far.process.reaped(DONE);
    assert!(far.finish(60).contains(&kind::STDOUT)); // owed bytes first
    far.turn();
    assert!(far.finish(0).is_empty());
    assert_eq!(far.finish(2), [kind::EXITED]);
    assert!(far.stdout.as_mut().unwrap().write_all(b"late").is_err());
}

#[test]
fn sources_without_room_are_left_alone() {
    let mut far = make(100);
    far.turn();
    let kinds: Vec<Source> = far.process.sources(false).iter().map(|(source, _, _)| *source).collect();
    assert_eq!(kinds, [Source::Stdin]);
}

#[test]
fn a_closed_stdin_is_at_its_end() {
    let mut far = behind(Doors { stdin: false, ..Doors::all() }, 10);
    sys::set_nonblocking(far.stdin.as_ref().unwrap()).unwrap();
    assert_eq!(far.stdin.as_mut().unwrap().read(&mut [0; 1]).unwrap(), 0);
    // The control: an open one would wait for the host.
    let mut open = make(10);
    sys::set_nonblocking(open.stdin.as_ref().unwrap()).unwrap();
    assert!(open.stdin.as_mut().unwrap().read(&mut [0; 1]).is_err());
}

#[test]
fn closed_output_is_thrown_away() {
    let mut far = behind(Doors { output: false, ..Doors::all() }, 4);
    for _ in 0..40 {
        far.stdout.as_mut().unwrap().write_all(&[b'x'; 4_096]).unwrap();
        assert!(far.turn().is_empty());
    }
    far.stdout = None;
    far.process.reaped(DONE);
    far.turn();
    assert_eq!(far.finish(0), [kind::EXITED]);
}
