// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! One connection to the socket: a line of hexadecimal digits comes in, a line of JSON goes out, and that was it.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::reports::domain::MAX_DATA;
use crate::reports::sha512;
use crate::reports::tsm::Evidence;
use crate::workload::sha256::to_hex;

const MAX_LINE: usize = 2 * MAX_DATA;
/// For the whole question, and again for taking the answer.
const PATIENCE: Duration = Duration::from_secs(10);

enum State {
    Asking(Vec<u8>),
    Waiting(Vec<u8>),
    Answering(Vec<u8>),
}

pub struct Client {
    stream: UnixStream,
    state: State,
    deadline: Instant,
}

impl Client {
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, state: State::Asking(Vec::new()), deadline: Instant::now() + PATIENCE })
    }

    pub fn fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// What to poll for.
    pub fn events(&self) -> i16 {
        match self.state {
            State::Asking(_) => libc::POLLIN,
            State::Waiting(_) => 0,
            State::Answering(_) => libc::POLLOUT,
        }
    }

    /// The bytes that wait for a report.
    pub fn question(&self) -> Option<&[u8]> {
        match &self.state {
            State::Waiting(data) => Some(data),
            _ => None,
        }
    }

    /// Until when the other end must have done its part. None while it is not its turn.
    pub fn deadline(&self) -> Option<Instant> {
        (!matches!(self.state, State::Waiting(_))).then_some(self.deadline)
    }

    pub fn answer(&mut self, text: String) {
        self.state = State::Answering(text.into_bytes());
        self.deadline = Instant::now() + PATIENCE;
    }

    fn asked(&mut self, line: &[u8]) {
        match parse(line) {
            Ok(data) => self.state = State::Waiting(data),
            Err(why) => self.answer(error(why)),
        }
    }

    /// Goes on after a poll event; false when the connection is over.
    pub fn go_on(&mut self) -> bool {
        let result = match &mut self.state {
            State::Asking(line) => {
                let mut buffer = [0; MAX_LINE + 2];
                let result = self.stream.read(&mut buffer);
                if let Ok(count) = result {
                    line.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    if count == 0 || line.contains(&b'\n') || line.len() > MAX_LINE {
                        let line = std::mem::take(line);
                        self.asked(&line);
                    }
                }
                result.map(|_| true)
            }
            // Nothing was polled for: the other end is gone.
            State::Waiting(_) => return false,
            State::Answering(text) => self.stream.write(text).map(|count| {
                text.drain(..count);
                !text.is_empty()
            }),
        };
        result.unwrap_or_else(|error| {
            matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        })
    }
}

/// The bytes of a question: digits up to the end of the line, or of everything.
pub fn parse(line: &[u8]) -> Result<Vec<u8>, &'static str> {
    let digits = match line.split_last() {
        Some((b'\n', digits)) => digits,
        _ => line,
    };
    if digits.len() > MAX_LINE {
        return Err("more than 128 hexadecimal digits");
    }
    let value = |digit: &u8| char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some((value(high)? << 4) | value(low)?),
        _ => None,
    };
    match digits.chunks(2).map(pair).collect::<Option<Vec<u8>>>() {
        Some(data) if !data.is_empty() => Ok(data),
        _ => Err("no line of 2 to 128 hexadecimal digits, two for each byte"),
    }
}

/// The answer to a question that has one.
pub fn success(report_data: &[u8; sha512::BYTES], evidence: &Evidence) -> String {
    let Evidence { provider, report, auxblob } = evidence;
    let (report_data, report, auxblob) = (to_hex(report_data), to_hex(report), to_hex(auxblob));
    format!(
        "{{\"auxblob\":\"{auxblob}\",\"provider\":\"{provider}\",\"report\":\"{report}\",\
         \"report_data\":\"{report_data}\"}}\n"
    )
}

pub fn error(why: &str) -> String {
    let plain =
        |character: char| if character.is_ascii_graphic() || character == ' ' { character } else { '?' };
    let text: String = why.chars().map(plain).collect();
    format!("{{\"error\":\"{}\"}}\n", text.replace(['"', '\\'], "?"))
}
