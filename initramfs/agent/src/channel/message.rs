// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Messages: the meaning of a frame's payload (docs/protocol.md, "Messages"). Pure functions over bytes.

use std::ffi::CString;

use crate::channel::frame::Frame;
use crate::failure::{Code, Failure};
use crate::network::request::{self, Network};
use crate::process::command::{Capabilities, Command, USUAL_UMASK};
use crate::reports::domain::MAX_DATA;

pub const MAGIC: &[u8; 4] = b"SEVA";
pub const VERSION: u16 = 2;
/// Capability bit 0: several processes in the container; bit 1: terminals.
pub const CAPABILITIES: u32 = 3;
/// No window may ever exceed this.
pub const MAX_WINDOW: u32 = i32::MAX as u32;
const MAX_ENTRIES: u32 = 4_096;
const MAX_GROUPS: u16 = 1_024;
const MAX_PATH: usize = 4_096;
/// Rows and columns of a terminal, each.
const MAX_SIZE: u16 = 4_096;

/// Message types.
pub mod kind {
    pub const HELLO: u8 = 0x01;
    pub const CONTAINER: u8 = 0x10;
    pub const SPAWN: u8 = 0x11;
    pub const STDIN: u8 = 0x12;
    pub const STDIN_EOF: u8 = 0x13;
    pub const SIGNAL: u8 = 0x14;
    pub const RESIZE: u8 = 0x15;
    pub const SHUTDOWN: u8 = 0x16;
    pub const WORKLOAD: u8 = 0x17;
    pub const FILE: u8 = 0x18;
    pub const PREPARE: u8 = 0x19;
    pub const RUN: u8 = 0x1A;
    pub const ATTEST: u8 = 0x1B;
    pub const NETWORK: u8 = 0x1C;
    pub const WINDOW: u8 = 0x20;
    pub const READY: u8 = 0x31;
    pub const STARTED: u8 = 0x32;
    pub const STDOUT: u8 = 0x33;
    pub const STDERR: u8 = 0x34;
    pub const EXITED: u8 = 0x35;
    pub const REFUSED: u8 = 0x36;
    pub const REPORT: u8 = 0x37;
    pub const ERROR: u8 = 0x3F;
}

/// How the image on the root disk is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKind {
    Tar,
    Erofs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub root: RootKind,
    /// Bytes of the image, 0 for the whole device.
    pub image_bytes: u64,
    /// Bytes of the writable tmpfs, 0 for half of the RAM.
    pub writable_bytes: u64,
    pub hostname: Vec<u8>,
}

/// Rows and columns of a terminal; 0 is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// A process of an unbound guest, as the host wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spawn {
    pub stdin_at_end: bool,
    pub size: Size,
    pub command: Command,
}

/// A process of the workload document: which one, and what the host may add to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// 0 is the workload, N the N-th entry of `exec`.
    pub entry: u32,
    pub stdin_at_end: bool,
    pub size: Size,
    pub environment: Vec<CString>,
}

/// A message from the host that is well-formed by itself; whether it is allowed now is the event loop's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Hello {
        version: u16,
        output_window: u32,
    },
    Container(Container),
    /// The inner failure means ERROR for this id, not the end of the connection.
    Spawn(u32, Result<Spawn, Failure>),
    /// The same.
    Run(u32, Result<Run, Failure>),
    /// The document's bytes, whatever they are.
    Workload(Vec<u8>),
    /// A file of the document's list, by its number, and its content.
    File(u32, Vec<u8>),
    Network(Network),
    /// The host name, empty for the document's.
    Prepare(Vec<u8>),
    /// The host's bytes for a report.
    Attest(Vec<u8>),
    Stdin(u32, Vec<u8>),
    StdinEof(u32),
    Signal(u32, i32),
    Resize(u32, Size),
    /// Process, stream (1 or 2), additional bytes.
    Window(u32, u8, u32),
    Shutdown,
}

/// Reads fields off the front of a payload; every read checks what is left.
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Failure> {
        let (head, tail) =
            self.0.split_at_checked(count).ok_or_else(|| Failure::protocol("payload too short"))?;
        self.0 = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (head, tail) =
            self.0.split_first_chunk().ok_or_else(|| Failure::protocol("payload too short"))?;
        self.0 = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, Failure> {
        self.array::<1>().map(|[value]| value)
    }

    pub fn u16(&mut self) -> Result<u16, Failure> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Failure> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Failure> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Failure> {
        let length = self.u32()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A byte string without NUL.
    fn text(&mut self, what: &str) -> Result<CString, Failure> {
        CString::new(self.bytes()?).map_err(|_| bad(format!("NUL byte in {what}")))
    }

    fn texts(&mut self, what: &str) -> Result<Vec<CString>, Failure> {
        let count = self.u32()?;
        if count > MAX_ENTRIES {
            return Err(bad(format!("{count} entries in {what}")));
        }
        (0..count).map(|_| self.text(what)).collect()
    }

    fn end(&self) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(Failure::protocol("payload too long"))
    }
}

pub fn bad(message: impl Into<String>) -> Failure {
    Failure::new(Code::BadValue, message)
}

/// Decodes a frame from the host. A failure is fatal for the connection.
pub fn decode(frame: Frame) -> Result<Message, Failure> {
    let Frame { kind, id, payload } = frame;
    let on_connection = matches!(
        kind,
        kind::HELLO
            | kind::CONTAINER
            | kind::SHUTDOWN
            | kind::WORKLOAD
            | kind::FILE
            | kind::NETWORK
            | kind::PREPARE
            | kind::ATTEST
    );
    if on_connection != (id == 0) {
        return Err(Failure::protocol(format!("message 0x{kind:02x} with process id {id}")));
    }
    match kind {
        kind::STDIN => return Ok(Message::Stdin(id, payload)),
        kind::WORKLOAD => return Ok(Message::Workload(payload)),
        kind::ATTEST if (1..=MAX_DATA).contains(&payload.len()) => return Ok(Message::Attest(payload)),
        kind::ATTEST => return Err(Failure::protocol(format!("ATTEST of {} bytes", payload.len()))),
        kind::SPAWN => return survivable(spawn(&payload)).map(|result| Message::Spawn(id, result)),
        kind::RUN => return survivable(run(&payload)).map(|result| Message::Run(id, result)),
        _ => {}
    }
    let mut fields = Fields(&payload);
    let message = match kind {
        kind::HELLO => hello(&mut fields)?,
        kind::CONTAINER => container(&mut fields)?,
        kind::FILE => Message::File(fields.u32()?, fields.bytes()?.to_vec()),
        kind::NETWORK => Message::Network(request::read(&mut fields)?),
        kind::PREPARE => Message::Prepare(hostname(&mut fields)?),
        kind::STDIN_EOF => Message::StdinEof(id),
        kind::SIGNAL => match fields.u32()? {
            number @ 1..=64 => Message::Signal(id, i32::try_from(number).unwrap_or(0)),
            number => return Err(Failure::protocol(format!("signal {number}"))),
        },
        kind::RESIZE => match size(&mut fields)? {
            Some(size) => Message::Resize(id, size),
            None => return Err(Failure::protocol("RESIZE beyond the limit")),
        },
        kind::SHUTDOWN => Message::Shutdown,
        kind::WINDOW => match fields.array()? {
            [stream @ (1 | 2), 0, 0, 0] => Message::Window(id, stream, fields.u32()?),
            _ => return Err(Failure::protocol("WINDOW for a stream that the agent does not send")),
        },
        other => return Err(Failure::protocol(format!("unknown message type 0x{other:02x}"))),
    };
    fields.end()?;
    Ok(message)
}

fn hello(fields: &mut Fields) -> Result<Message, Failure> {
    if fields.array()? != *MAGIC {
        return Err(Failure::protocol("HELLO without the magic number"));
    }
    let (version, zero, output_window) = (fields.u16()?, fields.u16()?, fields.u32()?);
    if version != VERSION {
        return Err(Failure::protocol(format!("protocol version {version}, this agent speaks {VERSION}")));
    }
    if zero != 0 || output_window > MAX_WINDOW {
        return Err(Failure::protocol("HELLO with reserved bits or too large a window"));
    }
    Ok(Message::Hello { version, output_window })
}

fn container(fields: &mut Fields) -> Result<Message, Failure> {
    let root = match fields.u8()? {
        1 => RootKind::Tar,
        2 => RootKind::Erofs,
        other => return Err(Failure::new(Code::Unsupported, format!("root kind {other}"))),
    };
    let (image_bytes, writable_bytes) = (fields.u64()?, fields.u64()?);
    let hostname = hostname(fields)?;
    Ok(Message::Container(Container { root, image_bytes, writable_bytes, hostname }))
}

fn hostname(fields: &mut Fields) -> Result<Vec<u8>, Failure> {
    let hostname = fields.bytes()?.to_vec();
    if hostname.len() > 64
        || !hostname.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(byte))
    {
        return Err(bad("host name"));
    }
    Ok(hostname)
}

/// A payload that can be decoded but asks for what cannot be concerns its process only.
fn survivable<T>(result: Result<T, Failure>) -> Result<Result<T, Failure>, Failure> {
    match result {
        Err(failure) if failure.code == Code::Protocol => Err(failure),
        result => Ok(result),
    }
}

fn spawn(payload: &[u8]) -> Result<Spawn, Failure> {
    let mut fields = Fields(payload);
    let flags = fields.u8()?;
    let (uid, gid) = (fields.u32()?, fields.u32()?);
    let count = fields.u16()?;
    if count > MAX_GROUPS {
        return Err(bad(format!("{count} supplementary groups")));
    }
    let groups = (0..count).map(|_| fields.u32()).collect::<Result<Vec<u32>, Failure>>()?;
    let cwd = fields.text("the working directory")?;
    let argv = fields.texts("argv")?;
    let environment = fields.texts("the environment")?;
    let size = size(&mut fields)?;
    fields.end()?;

    if flags & !3 != 0 {
        return Err(bad(format!("spawn flags 0x{flags:02x}")));
    }
    let size = size.ok_or_else(|| bad("size of the terminal"))?;
    // To the system calls, -1 means "leave unchanged": the process would stay root.
    if uid == u32::MAX || gid == u32::MAX || groups.contains(&u32::MAX) {
        return Err(bad("user or group id 4294967295"));
    }
    if !cwd.as_bytes().starts_with(b"/") || cwd.as_bytes().len() > MAX_PATH {
        return Err(bad("the working directory is not an absolute path of at most 4096 bytes"));
    }
    if argv.first().is_none_or(|program| program.is_empty()) {
        return Err(bad("argv[0] is missing or empty"));
    }
    check_names(&environment)?;
    let capabilities = Capabilities::unbound(uid);
    let terminal = flags & 1 != 0;
    let command = Command {
        argv,
        environment,
        cwd,
        uid,
        gid,
        groups,
        capabilities,
        terminal,
        umask: USUAL_UMASK,
        ..Command::default()
    };
    Ok(Spawn { stdin_at_end: flags & 2 != 0, size, command })
}

fn run(payload: &[u8]) -> Result<Run, Failure> {
    let mut fields = Fields(payload);
    let [flags, zeros @ ..] = fields.array::<4>()?;
    let entry = fields.u32()?;
    let environment = fields.texts("the environment")?;
    let size = size(&mut fields)?;
    fields.end()?;
    if flags & !2 != 0 || zeros != [0; 3] {
        return Err(bad("flags of RUN"));
    }
    let size = size.ok_or_else(|| bad("size of the terminal"))?;
    check_names(&environment)?;
    Ok(Run { entry, stdin_at_end: flags & 2 != 0, size, environment })
}

/// `None` for one beyond the limit.
fn size(fields: &mut Fields) -> Result<Option<Size>, Failure> {
    let size = Size { rows: fields.u16()?, columns: fields.u16()? };
    Ok((size.rows.max(size.columns) <= MAX_SIZE).then_some(size))
}

fn check_names(environment: &[CString]) -> Result<(), Failure> {
    let named =
        |entry: &CString| entry.as_bytes().iter().position(|byte| *byte == b'=').is_some_and(|at| at > 0);
    if !environment.iter().all(named) {
        return Err(bad("environment entry without a name"));
    }
    Ok(())
}
