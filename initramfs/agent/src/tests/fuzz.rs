// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Deterministic mutation fuzzing of everything that parses bytes from the host: no input may panic, run away, or hold
//! more memory than the limits say. Overflow checks are on.

use super::message::{run_payload, spawn_payload, Payload};
use super::network::network_payload;
use super::tar::{end, header, member, record, seal};
use crate::channel::frame::{encode, Decoder, HEADER_BYTES};
use crate::channel::message::{self, kind, Message};
use crate::cmdline;
use crate::root::pax::Overrides;
use crate::root::tar::{Archive, BLOCK};

/// xorshift64*, Vigna 2016: fixed seeds, the same inputs on each run.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % (limit.max(1) as u64)).unwrap()
    }

    /// One to four small damages of the kinds that parsers trip over.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const NASTY: [u8; 10] = [0, 1, 0x7f, 0x80, 0xff, b' ', b'=', b'9', b'/', b'\n'];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = NASTY[self.below(NASTY.len())],
                2 => bytes.truncate(at),
                3 => bytes.insert(at, NASTY[self.below(NASTY.len())]),
                4 if bytes.len() >= 4 => {
                    let at = self.below(bytes.len() - 3);
                    let value = [0, 1, 0xffff_ffff, 0x7fff_ffff, 0x1_0000, 0x1001][self.below(6)];
                    bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
                }
                _ => {
                    let piece: Vec<u8> = bytes.iter().skip(at).take(self.below(64)).copied().collect();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
        }
    }
}

fn host_messages() -> Vec<(u8, u32, Vec<u8>)> {
    vec![
        (kind::HELLO, 0, Payload::default().raw(b"SEVA").u16(2).u16(0).u32(262_144).0),
        (kind::CONTAINER, 0, Payload::default().raw(&[2]).raw(&[0; 16]).bytes(b"guest-1").0),
        (kind::SPAWN, 1, spawn_payload(0, 0, &[1, 2], b"/", &[b"sh", b"-c", b"id"], &[b"PATH=/bin", b"A="])),
        (kind::SPAWN, 2, spawn_payload(3, 1000, &[], b"/tmp", &[b"/bin/true"], &[])),
        (kind::WORKLOAD, 0, b"{}".to_vec()),
        (kind::FILE, 0, Payload::default().u32(0).bytes(b"content").0),
        (kind::NETWORK, 0, network_payload()),
        (kind::PREPARE, 0, Payload::default().bytes(b"guest-1").0),
        (kind::ATTEST, 0, vec![7; 64]),
        (kind::RUN, 3, run_payload(2, 1, &[b"LANG=C"])),
        (kind::STDIN, 1, b"some input".to_vec()),
        (kind::STDIN_EOF, 1, Vec::new()),
        (kind::SIGNAL, 1, vec![15, 0, 0, 0]),
        (kind::RESIZE, 1, vec![24, 0, 80, 0]),
        (kind::WINDOW, 1, vec![1, 0, 0, 0, 0, 0, 1, 0]),
        (kind::SHUTDOWN, 0, Vec::new()),
    ]
}

fn valid_stream() -> Vec<u8> {
    let mut stream = Vec::new();
    for (kind, id, payload) in host_messages() {
        encode(&mut stream, kind, id, &payload);
    }
    stream
}

/// Feeds a stream in pieces as the event loop does; the number of messages before the first violation.
fn feed(stream: &[u8], random: &mut Random) -> usize {
    let mut decoder = Decoder::default();
    let mut count = 0;
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, later) = rest.split_at((1 + random.below(200)).min(rest.len()));
        decoder.push(piece);
        rest = later;
        loop {
            match decoder.next() {
                Ok(Some(frame)) => {
                    if message::decode(frame).is_err() {
                        return count;
                    }
                    count += 1;
                }
                Ok(None) => break,
                Err(_) => return count,
            }
        }
    }
    count
}

#[test]
fn valid_messages_are_accepted() {
    assert_eq!(feed(&valid_stream(), &mut Random(1)), host_messages().len());
    for (kind, id, payload) in host_messages() {
        let decoded = message::decode(crate::channel::frame::Frame { kind, id, payload }).unwrap();
        assert!(!matches!(decoded, Message::Spawn(_, Err(_))));
    }
}

#[test]
fn mutated_frame_streams() {
    let mut random = Random(0x5EED_0001);
    let valid = valid_stream();
    let mut accepted = 0;
    for _ in 0..150_000 {
        let mut stream = valid.clone();
        random.mutate(&mut stream);
        accepted += feed(&stream, &mut random);
    }
    // Mutations hit everywhere: neither is everything refused at once nor does everything pass.
    assert!(accepted > 150_000 && accepted < 150_000 * host_messages().len(), "{accepted}");
}

#[test]
fn mutated_payloads() {
    let mut random = Random(0x5EED_0002);
    let messages = host_messages();
    let (mut good, mut bad) = (0, 0);
    for _ in 0..300_000 {
        let (kind, id, payload) = &messages[random.below(messages.len())];
        let mut payload = payload.clone();
        random.mutate(&mut payload);
        match message::decode(crate::channel::frame::Frame { kind: *kind, id: *id, payload }) {
            Ok(_) => good += 1,
            Err(_) => bad += 1,
        }
    }
    assert!(good > 1_000 && bad > 1_000, "{good} {bad}");
}

/// What `./doit attack` sets: another seed, another number of messages.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Memory of this process, in KiB (`proc_pid_status(5)`).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn mutated_and_replayed_messages() {
    const GROWTH: u64 = 4_096;
    let mut random = Random(setting("SEV_AGENT_SEED", 0x5EED_0007));
    let total = setting("SEV_AGENT_MESSAGES", 100_000);
    let messages = host_messages();
    let (mut sent, mut accepted, mut before) = (0, 0, 0);
    while sent < total {
        // Of a connection: messages in any order, some of them again and again.
        let mut stream = Vec::new();
        for _ in 0..=random.below(24) {
            let (kind, id, payload) = &messages[random.below(messages.len())];
            for _ in 0..=random.below(3) {
                encode(&mut stream, *kind, *id, payload);
                sent += 1;
            }
        }
        for _ in 0..random.below(4) {
            random.mutate(&mut stream);
        }
        accepted += feed(&stream, &mut random) as u64;
        // After the first tenth whatever is kept for reuse is there.
        if before == 0 && sent > total / 10 {
            before = resident();
        }
    }
    let after = resident();
    println!("{sent} messages, {accepted} accepted, {before} KiB before, {after} KiB after");
    assert!(accepted > total / 10 && accepted < sent, "{accepted} of {sent}");
    // Other tests run beside this one unless it was asked for by name.
    assert!(
        std::env::var("SEV_AGENT_SEED").is_err() || after <= before + GROWTH,
        "grew from {before} to {after} KiB"
    );
}

#[test]
fn random_bytes_as_frames() {
    let mut random = Random(0x5EED_0003);
    let mut accepted = 0;
    for _ in 0..50_000 {
        let length = random.below(80);
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
        // Half of them with a plausible header, so that payload code is reached.
        if bytes.len() > HEADER_BYTES && random.below(2) == 0 {
            let kinds =
                [0x01, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B, 0x1C, 0x20];
            bytes[0] = kinds[random.below(kinds.len())];
            bytes[1..4].fill(0);
            let payload = u32::try_from(bytes.len() - HEADER_BYTES).unwrap();
            bytes[8..12].copy_from_slice(&payload.to_le_bytes());
        }
        accepted += feed(&bytes, &mut random);
    }
    assert!(accepted > 1_000, "{accepted}");
}

fn valid_archive() -> Vec<u8> {
    let mut bytes = member(b"bin/", b'5', b"");
    let records =
        [record("path", b"bin/long"), record("SCHILY.xattr.user.x", b"\0y"), record("mtime", b"-1.5")];
    bytes.extend(member(b"pax", b'x', &records.concat()));
    bytes.extend(member(b"bin/a", b'0', &[b'c'; 600]));
    bytes.extend(header(b"bin/b", b'1', 0, b"bin/a"));
    bytes.extend(member(b"././@LongLink", b'L', b"some/long/name\0"));
    bytes.extend(header(b"bin/c", b'2', 0, b"../x"));
    bytes.extend(header(b"dev/n", b'3', 0, b""));
    bytes.extend(end());
    bytes
}

/// Reads an archive to its end or first error; members and bytes are bounded by the input's length.
fn walk(bytes: &[u8]) -> usize {
    let mut archive = Archive::new(bytes);
    let mut members = 0;
    let mut content = 0;
    let mut buffer = [0; 512];
    while let Ok(Some(entry)) = archive.next_entry() {
        members += 1;
        assert!(
            !entry.path.is_empty() && entry.mode <= 0o7777 && entry.uid != u32::MAX && entry.gid != u32::MAX
        );
        assert!(!entry.path.contains(&0) && !entry.link.contains(&0));
        while let Ok(count @ 1..) = archive.read(&mut buffer) {
            content += count;
        }
    }
    assert!(members <= bytes.len() / BLOCK && content <= bytes.len());
    members
}

#[test]
fn mutated_archives() {
    let mut random = Random(0x5EED_0004);
    let valid = valid_archive();
    assert_eq!(walk(&valid), 5);
    let mut members = 0;
    for _ in 0..150_000 {
        let mut bytes = valid.clone();
        random.mutate(&mut bytes);
        // Without a right checksum nothing behind it would be reached.
        let mut at = 0;
        while at + BLOCK <= bytes.len() && random.below(8) != 0 {
            if bytes[at..at + BLOCK].windows(5).any(|window| window == b"ustar") {
                seal(&mut bytes[at..at + BLOCK]);
            }
            at += BLOCK;
        }
        members += walk(&bytes);
    }
    assert!(members > 150_000, "{members}");
}

#[test]
fn mutated_pax_records() {
    let mut random = Random(0x5EED_0005);
    let valid = [
        record("path", b"a/b"),
        record("size", b"123"),
        record("mtime", b"1700000000.123456789"),
        record("uid", b"1"),
        record("SCHILY.xattr.security.capability", b"\0\0\0\x02"),
    ]
    .concat();
    assert!(Overrides::default().add(&valid).is_ok());
    let mut good = 0;
    for _ in 0..150_000 {
        let mut bytes = valid.clone();
        random.mutate(&mut bytes);
        good += usize::from(Overrides::default().add(&bytes).is_ok());
    }
    assert!(good > 100, "{good}");
}

#[test]
fn mutated_command_lines() {
    let mut random = Random(0x5EED_0006);
    let hash = "0f".repeat(32);
    let valid = format!(
        "quiet sev_agent.profile=debug sev_agent.log=1 sev_agent.verity={hash}:abcd:1234 sev_agent.unbound\n"
    );
    assert!(cmdline::parse(valid.as_bytes()).unwrap().verity.is_some());
    let (mut good, mut bad) = (0, 0);
    for _ in 0..150_000 {
        let mut bytes = valid.clone().into_bytes();
        random.mutate(&mut bytes);
        match cmdline::parse(&bytes) {
            Ok(_) => good += 1,
            Err(_) => bad += 1,
        }
    }
    assert!(good > 1_000 && bad > 1_000, "{good} {bad}");
}
