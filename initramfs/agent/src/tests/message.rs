// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The message decoder and encoders against docs/protocol.md.

use std::ffi::CString;

use crate::channel::frame::{Frame, HEADER_BYTES};
use crate::channel::message::*;
use crate::channel::reply::*;
use crate::failure::{Code, Failure};
use crate::process::command::{Capabilities, Command};

/// Builds payloads field by field, as the specification lists them.
#[derive(Clone, Default)]
pub struct Payload(pub Vec<u8>);

impl Payload {
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    pub fn u32(self, value: u32) -> Self {
        self.raw(&value.to_le_bytes())
    }
    pub fn u16(self, value: u16) -> Self {
        self.raw(&value.to_le_bytes())
    }
    pub fn bytes(self, bytes: &[u8]) -> Self {
        self.u32(u32::try_from(bytes.len()).unwrap()).raw(bytes)
    }
    pub fn list(self, items: &[&[u8]]) -> Self {
        items.iter().fold(self.u32(u32::try_from(items.len()).unwrap()), |payload, item| payload.bytes(item))
    }
}

pub fn spawn_payload(
    flags: u8,
    uid: u32,
    groups: &[u32],
    cwd: &[u8],
    argv: &[&[u8]],
    env: &[&[u8]],
) -> Vec<u8> {
    let payload =
        Payload::default().raw(&[flags]).u32(uid).u32(100).u16(u16::try_from(groups.len()).unwrap());
    let payload = groups.iter().fold(payload, |payload, group| payload.u32(*group));
    payload.bytes(cwd).list(argv).list(env).u16(24).u16(80).0
}

fn host(kind: u8, id: u32, payload: &[u8]) -> Result<Message, Failure> {
    decode(Frame { kind, id, payload: payload.to_vec() })
}

fn code_of(payload: &[u8]) -> Code {
    match host(kind::SPAWN, 1, payload) {
        Ok(Message::Spawn(1, Err(failure))) => failure.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn hello_is_checked_byte_by_byte() {
    let good = Payload::default().raw(b"SEVA").u16(2).u16(0).u32(65_536).0;
    assert_eq!(host(kind::HELLO, 0, &good), Ok(Message::Hello { version: 2, output_window: 65_536 }));
    assert!(host(kind::HELLO, 1, &good).is_err());
    for at in 0..8 {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(host(kind::HELLO, 0, &bad).is_err(), "byte {at}");
    }
    assert!(host(kind::HELLO, 0, &good[..11]).is_err());
    assert!(host(kind::HELLO, 0, &Payload(good).raw(b"x").0).is_err());
    assert!(host(kind::HELLO, 0, &Payload::default().raw(b"SEVA").u16(2).u16(0).u32(1 << 31).0).is_err());
}

#[test]
fn container_fields() {
    let make = |kind: u8, name: &[u8]| {
        Payload::default().raw(&[kind]).raw(&5_u64.to_le_bytes()).raw(&9_u64.to_le_bytes()).bytes(name).0
    };
    let expected =
        Container { root: RootKind::Erofs, image_bytes: 5, writable_bytes: 9, hostname: b"a-1.b".to_vec() };
    assert_eq!(host(kind::CONTAINER, 0, &make(2, b"a-1.b")), Ok(Message::Container(expected)));
    assert!(host(kind::CONTAINER, 0, &make(1, b"")).is_ok());
    assert_eq!(host(kind::CONTAINER, 0, &make(3, b"")).unwrap_err().code, Code::Unsupported);
    for name in [&b"a b"[..], b"a/b", b"a\0", "ä".as_bytes(), &[b'a'; 65]] {
        assert_eq!(host(kind::CONTAINER, 0, &make(1, name)).unwrap_err().code, Code::BadValue);
    }
    assert!(host(kind::CONTAINER, 7, &make(1, b"")).is_err());
}

#[test]
fn spawn_fields() {
    let payload = spawn_payload(2, 1000, &[5, 6], b"/tmp", &[b"sh", b"-c", b""], &[b"A=b=c", b"B="]);
    let Ok(Message::Spawn(1, Ok(spawn))) = host(kind::SPAWN, 1, &payload) else { panic!() };
    let text = |text: &str| CString::new(text).unwrap();
    assert_eq!(
        spawn,
        Spawn {
            stdin_at_end: true,
            size: Size { rows: 24, columns: 80 },
            command: Command {
                uid: 1000,
                gid: 100,
                groups: vec![5, 6],
                cwd: text("/tmp"),
                argv: vec![text("sh"), text("-c"), text("")],
                environment: vec![text("A=b=c"), text("B=")],
                capabilities: Capabilities::unbound(1000),
                umask: 0o022,
                ..Command::default()
            },
        }
    );
}

#[test]
fn bad_spawn_values_concern_the_process_only() {
    let sh: &[&[u8]] = &[b"sh"];
    let good = spawn_payload(1, 0, &[], b"/", sh, &[]);
    let Ok(Message::Spawn(1, Ok(spawn))) = host(kind::SPAWN, 1, &good) else { panic!() };
    assert!(spawn.command.terminal);
    let wide = [&good[..good.len() - 2], &4_097_u16.to_le_bytes()].concat();
    let many: Vec<&[u8]> = vec![b"x"; 4_097];
    let groups = vec![1; 1_025];
    for payload in [
        wide,
        spawn_payload(4, 0, &[], b"/", sh, &[]),
        spawn_payload(0, u32::MAX, &[], b"/", sh, &[]),
        spawn_payload(0, 0, &[u32::MAX], b"/", sh, &[]),
        spawn_payload(0, 0, &groups, b"/", sh, &[]),
        spawn_payload(0, 0, &[], b"tmp", sh, &[]),
        spawn_payload(0, 0, &[], b"", sh, &[]),
        spawn_payload(0, 0, &[], &[b'/'; 4_097], sh, &[]),
        spawn_payload(0, 0, &[], b"/a\0b", sh, &[]),
        spawn_payload(0, 0, &[], b"/", &[], &[]),
        spawn_payload(0, 0, &[], b"/", &[b"", b"x"], &[]),
        spawn_payload(0, 0, &[], b"/", &[b"a\0b"], &[]),
        spawn_payload(0, 0, &[], b"/", &many, &[]),
        spawn_payload(0, 0, &[], b"/", sh, &many),
        spawn_payload(0, 0, &[], b"/", sh, &[b"NAME"]),
        spawn_payload(0, 0, &[], b"/", sh, &[b"=value"]),
    ] {
        assert_eq!(code_of(&payload), Code::BadValue);
    }
    assert!(matches!(
        host(kind::SPAWN, 1, &spawn_payload(0, 0, &[1; 1_024], b"/", &many[..4_096], &[])),
        Ok(Message::Spawn(1, Ok(_)))
    ));
}

#[test]
fn spawn_cut_anywhere_is_a_violation() {
    let payload = spawn_payload(0, 0, &[5], b"/tmp", &[b"sh", b"-c"], &[b"A=b"]);
    for end in 0..payload.len() {
        assert_eq!(host(kind::SPAWN, 1, &payload[..end]).unwrap_err().code, Code::Protocol, "cut at {end}");
    }
    assert!(host(kind::SPAWN, 1, &Payload(payload.clone()).raw(&[0]).0).is_err());
    assert!(host(kind::SPAWN, 0, &payload).is_err());
}

#[test]
fn lengths_beyond_the_payload_do_not_allocate() {
    let huge = Payload::default().raw(&[0]).u32(0).u32(0).u16(0).u32(u32::MAX).0;
    assert_eq!(host(kind::SPAWN, 1, &huge).unwrap_err().code, Code::Protocol);
}

#[test]
fn small_messages() {
    assert_eq!(host(kind::STDIN, 3, b"abc"), Ok(Message::Stdin(3, b"abc".to_vec())));
    assert_eq!(host(kind::STDIN_EOF, 3, b""), Ok(Message::StdinEof(3)));
    assert_eq!(host(kind::SIGNAL, 3, &15_u32.to_le_bytes()), Ok(Message::Signal(3, 15)));
    let size = Size { rows: 1, columns: 4_096 };
    assert_eq!(host(kind::RESIZE, 3, &[1, 0, 0, 16]), Ok(Message::Resize(3, size)));
    assert_eq!(host(kind::SHUTDOWN, 0, b""), Ok(Message::Shutdown));
    assert_eq!(host(kind::WINDOW, 3, &[1, 0, 0, 0, 0, 1, 0, 0]), Ok(Message::Window(3, 1, 256)));
    for (kind, id, payload) in [
        (kind::STDIN, 0, &b"abc"[..]),
        (kind::STDIN_EOF, 3, b"x"),
        (kind::SIGNAL, 3, &[0, 0, 0, 0]),
        (kind::SIGNAL, 3, &[65, 0, 0, 0]),
        (kind::RESIZE, 3, &[1, 0, 1, 16]),
        (kind::RESIZE, 3, &[1, 16, 1, 0]),
        (kind::RESIZE, 0, &[1, 0, 2, 0]),
        (kind::SIGNAL, 3, &[15, 0, 0]),
        (kind::SIGNAL, 0, &[15, 0, 0, 0]),
        (kind::RESIZE, 3, &[1, 0, 2]),
        (kind::SHUTDOWN, 0, b"x"),
        (kind::SHUTDOWN, 1, b""),
        (kind::WINDOW, 3, &[0, 0, 0, 0, 0, 1, 0, 0]),
        (kind::WINDOW, 3, &[3, 0, 0, 0, 0, 1, 0, 0]),
        (kind::WINDOW, 3, &[1, 0, 1, 0, 0, 1, 0, 0]),
        (kind::READY, 0, &[0, 0, 0, 0]),
        (0x00, 0, b""),
        (0xff, 1, b""),
    ] {
        assert_eq!(host(kind, id, payload).unwrap_err().code, Code::Protocol, "0x{kind:02x} {payload:?}");
    }
}

#[test]
fn encoders_write_the_documented_layout() {
    let encoded = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        (out[0], out[4], out[HEADER_BYTES..].to_vec())
    };
    let hello = [b"SEVA".to_vec(), vec![2, 0, 2, 0, 3, 0, 0, 0, 0, 0, 4, 0, 1, 1]].concat();
    assert_eq!(encoded(&|out| encode_hello(out, 262_144, true, true)), (0x01, 0, hello));
    assert_eq!(encoded(&|out| encode_ready(out, true)), (0x31, 0, vec![1, 0, 0, 0]));
    assert_eq!(encoded(&|out| encode_started(out, 9, 258)), (0x32, 9, vec![2, 1, 0, 0]));
    assert_eq!(encoded(&|out| encode_stdin_window(out, 9, 7)), (0x20, 9, vec![0, 0, 0, 0, 7, 0, 0, 0]));
    let exit = Exit::from_wait_status(7 << 8);
    assert_eq!(encoded(&|out| encode_exited(out, 9, exit)), (0x35, 9, vec![0, 0, 0, 0, 7, 0, 0, 0]));
    let dumped = Exit::from_wait_status(0x80 | 11);
    assert_eq!(encoded(&|out| encode_exited(out, 9, dumped)), (0x35, 9, vec![1, 1, 0, 0, 11, 0, 0, 0]));
    let refused = vec![0x14, 0, 0, 0, 2, 0, 0, 0, b'n', b'o'];
    assert_eq!(encoded(&|out| encode_refused(out, 9, kind::SIGNAL, "no")), (0x36, 9, refused));
    let failure = Failure::new(Code::Rootfs, "no");
    assert_eq!(encoded(&|out| encode_error(out, 0, &failure)), (0x3F, 0, vec![4, 0, 2, 0, 0, 0, b'n', b'o']));
}

#[test]
fn error_texts_are_cut_between_characters() {
    let mut out = Vec::new();
    encode_error(&mut out, 1, &Failure::new(Code::Spawn, format!("x{}", "ä".repeat(600))));
    let text = &out[HEADER_BYTES + 6..];
    assert_eq!(text.len(), 1_023);
    assert!(std::str::from_utf8(text).is_ok());
}

/// RUN of an entry, with the host's variables.
pub fn run_payload(flags: u8, entry: u32, env: &[&[u8]]) -> Vec<u8> {
    Payload::default().raw(&[flags, 0, 0, 0]).u32(entry).list(env).u16(24).u16(80).0
}

#[test]
fn run_fields() {
    let payload = run_payload(2, 3, &[b"A=b=c"]);
    let environment = vec![CString::new("A=b=c").unwrap()];
    let expected = Run { entry: 3, stdin_at_end: true, size: Size { rows: 24, columns: 80 }, environment };
    assert_eq!(host(kind::RUN, 1, &payload), Ok(Message::Run(1, Ok(expected))));
    for end in 0..payload.len() {
        assert_eq!(host(kind::RUN, 1, &payload[..end]).unwrap_err().code, Code::Protocol, "cut at {end}");
    }
    assert!(host(kind::RUN, 0, &payload).is_err());
    let mut zero = payload.clone();
    zero[1] = 1;
    let mut wide = payload.clone();
    *wide.last_mut().unwrap() = 0xff;
    for bad in [wide, run_payload(1, 0, &[]), run_payload(0, 0, &[b"=x"]), run_payload(0, 0, &[b"x"]), zero] {
        let Ok(Message::Run(1, Err(failure))) = host(kind::RUN, 1, &bad) else { panic!() };
        assert_eq!(failure.code, Code::BadValue);
    }
}

#[test]
fn messages_of_bound_guests() {
    assert_eq!(host(kind::WORKLOAD, 0, b"{}"), Ok(Message::Workload(b"{}".to_vec())));
    let file = Payload::default().u32(7).bytes(b"abc").0;
    assert_eq!(host(kind::FILE, 0, &file), Ok(Message::File(7, b"abc".to_vec())));
    let prepare = Payload::default().bytes(b"box").0;
    assert_eq!(host(kind::PREPARE, 0, &prepare), Ok(Message::Prepare(b"box".to_vec())));
    assert_eq!(host(kind::PREPARE, 0, &Payload::default().bytes(b"a b").0).unwrap_err().code, Code::BadValue);
    for kind in [kind::WORKLOAD, kind::FILE, kind::PREPARE] {
        assert!(host(kind, 1, &file).is_err());
    }
    assert!(host(kind::FILE, 0, &file[..9]).is_err());
    assert!(host(kind::FILE, 0, &Payload(file).raw(b"x").0).is_err());
}
