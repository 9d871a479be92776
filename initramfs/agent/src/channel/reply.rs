// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Messages of the agent: their bytes (docs/protocol.md, "Messages").

use crate::channel::frame;
use crate::channel::message::{kind, CAPABILITIES, MAGIC, VERSION};
use crate::failure::Failure;

const MAX_ERROR_TEXT: usize = 1_024;

/// The agent's HELLO.
pub fn encode_hello(out: &mut Vec<u8>, stdin_window: u32, debug: bool, bound: bool) {
    let mut payload = MAGIC.to_vec();
    payload.extend_from_slice(&VERSION.to_le_bytes());
    payload.extend_from_slice(&VERSION.to_le_bytes());
    payload.extend_from_slice(&CAPABILITIES.to_le_bytes());
    payload.extend_from_slice(&stdin_window.to_le_bytes());
    payload.extend_from_slice(&[u8::from(debug), u8::from(bound)]);
    frame::encode(out, kind::HELLO, 0, &payload);
}

pub fn encode_ready(out: &mut Vec<u8>, verity: bool) {
    frame::encode(out, kind::READY, 0, &[u8::from(verity), 0, 0, 0]);
}

pub fn encode_started(out: &mut Vec<u8>, id: u32, pid: i32) {
    frame::encode(out, kind::STARTED, id, &pid.to_le_bytes());
}

/// More room for stdin; 0 bytes say that the process closed it.
pub fn encode_stdin_window(out: &mut Vec<u8>, id: u32, bytes: u32) {
    let mut payload = vec![0; 4];
    payload.extend_from_slice(&bytes.to_le_bytes());
    frame::encode(out, kind::WINDOW, id, &payload);
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub by_signal: bool,
    pub core: bool,
    /// Exit status or signal number.
    pub code: u8,
}

impl Exit {
    /// Reads a wait status as `waitpid` returns it for an ended process.
    pub fn from_wait_status(status: i32) -> Self {
        let [low, high, ..] = status.to_le_bytes();
        match low & 0x7f {
            0 => Self { by_signal: false, core: false, code: high },
            signal => Self { by_signal: true, core: low & 0x80 != 0, code: signal },
        }
    }
}

pub fn encode_exited(out: &mut Vec<u8>, id: u32, exit: Exit) {
    let payload = [u8::from(exit.by_signal), u8::from(exit.core), 0, 0, exit.code, 0, 0, 0];
    frame::encode(out, kind::EXITED, id, &payload);
}

pub fn encode_error(out: &mut Vec<u8>, id: u32, failure: &Failure) {
    let payload = [&(failure.code as u16).to_le_bytes(), text(&failure.message).as_slice()].concat();
    frame::encode(out, kind::ERROR, id, &payload);
}

/// A message of the host had no effect, because the workload document does not open it.
pub fn encode_refused(out: &mut Vec<u8>, id: u32, refused: u8, why: &str) {
    let payload = [&[refused, 0, 0, 0], text(why).as_slice()].concat();
    frame::encode(out, kind::REFUSED, id, &payload);
}

/// A counted text, cut between characters.
fn text(message: &str) -> Vec<u8> {
    let mut end = message.len().min(MAX_ERROR_TEXT);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let text = message.as_bytes().get(..end).unwrap_or_default();
    [&u32::try_from(text.len()).unwrap_or(0).to_le_bytes(), text].concat()
}
