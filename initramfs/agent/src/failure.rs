// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The one error type that reaches the host: an ERROR code of docs/protocol.md and a line of text.

use std::fmt;
use std::io;

/// ERROR codes, docs/protocol.md, "ERROR".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    Protocol = 1,
    Unsupported = 2,
    BadValue = 3,
    Rootfs = 4,
    NotFound = 5,
    NotExecutable = 6,
    Spawn = 7,
    Internal = 8,
    /// The workload document does not open it.
    Refused = 9,
}

impl Code {
    /// The code behind a number that a forked child sent; anything unknown is internal.
    pub fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Protocol,
            2 => Self::Unsupported,
            3 => Self::BadValue,
            4 => Self::Rootfs,
            5 => Self::NotFound,
            6 => Self::NotExecutable,
            7 => Self::Spawn,
            9 => Self::Refused,
            _ => Self::Internal,
        }
    }
}

/// A failure as the host gets to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn protocol(message: impl Into<String>) -> Self {
        Self::new(Code::Protocol, message)
    }

    /// Wraps a system call's error: "what: reason".
    pub fn from_io(code: Code, what: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(code, format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "error {}: {}", self.code as u16, self.message)
    }
}

/// Adds code and context to a system call's error.
pub trait Context<T> {
    fn context(self, code: Code, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, code: Code, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::from_io(code, what, &error))
    }
}
