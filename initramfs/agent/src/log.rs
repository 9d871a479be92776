// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Log lines to the kernel log, when the measured command line asks for them. In production nothing is written: what
//! the agent knows about the workload does not belong on a console that the host reads.

use std::cell::RefCell;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;

thread_local! {
    static KMSG: RefCell<Option<File>> = const { RefCell::new(None) };
}

/// Opens the log. Without /dev/kmsg there is no log.
pub fn enable() {
    let file = OpenOptions::new().write(true).open("/dev/kmsg").ok();
    KMSG.with(|slot| *slot.borrow_mut() = file);
}

/// Writes one line.
pub fn line(message: fmt::Arguments) {
    KMSG.with(|slot| {
        if let Some(file) = slot.borrow_mut().as_mut() {
            // One write is one record; a full log is no reason to fail.
            let _ = file.write_all(format!("<6>sev-agent: {message}\n").as_bytes());
        }
    });
}

macro_rules! log {
    ($($part:tt)*) => { $crate::log::line(format_args!($($part)*)) };
}
pub(crate) use log;
