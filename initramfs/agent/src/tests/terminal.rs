// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! A process whose streams are a terminal, on a real one.

use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::channel::frame::Decoder;
use crate::channel::message::{kind, Size};
use crate::channel::reply::Exit;
use crate::process::live::{Process, Progress};
use crate::process::spawn::Spawned;
use crate::sys::{self, terminal};
use crate::workload::process::Doors;

/// A process without a process: its end of the terminal is in the test's hands.
fn make(window: u32) -> (Process, File) {
    let (outer, inner) = terminal::open(&File::open("/dev/pts").unwrap().into()).unwrap();
    let (report, far_report) = sys::pipe().unwrap();
    drop(far_report);
    let spawned = Spawned {
        pid: i32::MAX,
        report: report.into(),
        stdin: outer.try_clone().unwrap().into(),
        stdout: outer.try_clone().unwrap().into(),
        stderr: None,
        terminal: Some(outer.into()),
    };
    (Process::new(5, spawned, Doors::all(), false, window), inner.into())
}

/// Rounds of the event loop until nothing happens: what came, by message type.
fn turns(process: &mut Process) -> Vec<(u8, Vec<u8>)> {
    let mut decoder = Decoder::default();
    loop {
        let list = process.sources(true);
        let mut fds: Vec<sys::PollFd> =
            list.iter().map(|(_, fd, events)| sys::PollFd { fd: *fd, events: *events, revents: 0 }).collect();
        sys::poll(&mut fds, 50).unwrap();
        if fds.iter().all(|entry| entry.revents == 0) {
            break;
        }
        let mut out = Vec::new();
        for (entry, (source, _, _)) in fds.iter().zip(list) {
            if entry.revents != 0 {
                assert!(matches!(process.event(source, &mut out), Progress::Running));
            }
        }
        decoder.push(&out);
    }
    std::iter::from_fn(|| decoder.next().unwrap()).map(|frame| (frame.kind, frame.payload)).collect()
}

fn written(process: &mut Process) -> Vec<u8> {
    let output = turns(process).into_iter().filter(|(kind, _)| *kind == kind::STDOUT);
    output.flat_map(|(_, payload)| payload).collect()
}

#[test]
fn it_is_a_terminal() {
    let (mut process, mut inner) = make(1_000);
    inner.write_all(b"one\n").unwrap();
    assert_eq!(written(&mut process), b"one\r\n");
    // What the host types is echoed, and read a line at a time.
    process.stdin(b"two\r").unwrap();
    assert_eq!(written(&mut process), b"two\r\n");
    let mut buffer = [0; 16];
    let count = inner.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..count], b"two\n");
    for (rows, columns) in [(31, 97), (4_096, 1)] {
        process.resize(Size { rows, columns });
        assert_eq!(terminal::size(&inner).unwrap(), (rows, columns));
    }
}

#[test]
fn its_end_comes_after_all_output() {
    let (mut process, mut inner) = make(10_000);
    turns(&mut process);
    inner.write_all(&[b'x'; 3_000]).unwrap();
    drop(inner);
    process.reaped(Exit { by_signal: false, core: false, code: 0 });
    let mut out = Vec::new();
    // Unread bytes hold the end back, for however long.
    let later = Instant::now() + Duration::from_secs(60);
    assert!(matches!(process.finish(later, &mut out), Progress::Running));
    assert_eq!(written(&mut process).len(), 3_000);
    assert!(matches!(process.finish(Instant::now(), &mut out), Progress::Finished));
    // Nothing is left to resize.
    process.resize(Size { rows: 1, columns: 1 });
}

#[test]
fn it_has_one_window() {
    let (mut process, mut inner) = make(4);
    inner.write_all(b"0123456789").unwrap();
    assert_eq!(written(&mut process), b"0123");
    process.grant(1, 3).unwrap();
    assert_eq!(written(&mut process), b"456");
    // Its standard error is at its end from the start.
    process.grant(2, 3).unwrap();
    assert!(written(&mut process).is_empty());
}
