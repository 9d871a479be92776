// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Frames: a 12-byte header and a payload (docs/protocol.md, "Frames"). Knows nothing about messages.

use crate::channel::message::kind;
use crate::failure::Failure;

pub const HEADER_BYTES: usize = 12;
pub const MAX_PAYLOAD: usize = 65_536;
/// All parts of a continued message together.
pub const MAX_CONTINUED: usize = 1 << 20;
const FLAG_MORE: u8 = 1;
/// What may come in parts.
const CONTINUED: [u8; 4] = [kind::SPAWN, kind::WORKLOAD, kind::FILE, kind::RUN];

/// One message, its continuation already resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub id: u32,
    pub payload: Vec<u8>,
}

/// Appends a frame to `out`. Payloads of the agent are far below the limit; a longer one is cut, never sent oversized.
pub fn encode(out: &mut Vec<u8>, kind: u8, id: u32, payload: &[u8]) {
    let payload = payload.get(..MAX_PAYLOAD).unwrap_or(payload);
    let length = u32::try_from(payload.len()).unwrap_or(0);
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&id.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(payload);
}

struct Header {
    kind: u8,
    more: bool,
    id: u32,
    length: usize,
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let field = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(field.try_into().ok()?))
}

/// The header at the start of `bytes`; `None` when there are too few of them.
fn header(bytes: &[u8]) -> Result<Option<Header>, Failure> {
    let (Some([kind, flags, reserved @ ..]), Some(id), Some(length)) =
        (bytes.first_chunk::<4>(), word(bytes, 4), word(bytes, 8))
    else {
        return Ok(None);
    };
    if *flags & !FLAG_MORE != 0 || *reserved != [0, 0] {
        return Err(Failure::protocol("reserved bits in a frame header"));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_PAYLOAD {
        return Err(Failure::protocol(format!("frame payload of {length} bytes")));
    }
    Ok(Some(Header { kind: *kind, more: *flags & FLAG_MORE != 0, id, length }))
}

/// Cuts a byte stream into frames. Holds at most what was pushed since the last complete frame, plus one message in parts.
#[derive(Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    /// Kind, process id and payload so far.
    parts: Option<(u8, u32, Vec<u8>)>,
}

impl Decoder {
    /// Adds received bytes. The caller takes all frames out before it adds more, which bounds the buffer.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message, `None` when more bytes are needed. After an error the stream is useless.
    pub fn next(&mut self) -> Result<Option<Frame>, Failure> {
        loop {
            let rest = self.buffer.get(self.start..).unwrap_or_default();
            let Some(header) = header(rest)? else { return Ok(None) };
            let Some(payload) = rest.get(HEADER_BYTES..HEADER_BYTES + header.length) else { return Ok(None) };
            let payload = payload.to_vec();
            self.start += HEADER_BYTES + header.length;
            if let Some(frame) = self.join(&header, payload)? {
                return Ok(Some(frame));
            }
        }
    }

    /// Collects the parts of a message that may have some; everything else passes.
    fn join(&mut self, header: &Header, payload: Vec<u8>) -> Result<Option<Frame>, Failure> {
        let (kind, id) = (header.kind, header.id);
        if !CONTINUED.contains(&kind) {
            if header.more {
                return Err(Failure::protocol("continuation of a message that has no parts"));
            }
            return Ok(Some(Frame { kind, id, payload }));
        }
        let (first_kind, first_id, mut whole) = self.parts.take().unwrap_or((kind, id, Vec::new()));
        if (first_kind, first_id) != (kind, id) {
            return Err(Failure::protocol("two messages in parts at once"));
        }
        if whole.len() + payload.len() > MAX_CONTINUED {
            return Err(Failure::protocol("message of more than 1 MiB"));
        }
        whole.extend_from_slice(&payload);
        if header.more {
            self.parts = Some((kind, id, whole));
            return Ok(None);
        }
        Ok(Some(Frame { kind, id, payload: whole }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn raw(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, kind, id, payload);
        out[1] = flags;
        out
    }

    fn all(bytes: &[u8], chunk: usize) -> Result<Vec<Frame>, Failure> {
        let mut decoder = Decoder::default();
        let mut frames = Vec::new();
        for piece in bytes.chunks(chunk) {
            decoder.push(piece);
            while let Some(frame) = decoder.next()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_survive_any_fragmentation() {
        let mut stream = raw(0x12, 0, 7, b"hello");
        stream.extend(raw(0x16, 0, 0, b""));
        stream.extend(raw(0x12, 0, 8, &vec![0xA5; MAX_PAYLOAD]));
        for chunk in [1, 2, 11, 12, 13, 4096, stream.len()] {
            let frames = all(&stream, chunk).unwrap();
            assert_eq!(frames.len(), 3);
            assert_eq!(frames[0], Frame { kind: 0x12, id: 7, payload: b"hello".to_vec() });
            assert_eq!(frames[2].payload.len(), MAX_PAYLOAD);
        }
    }

    #[test]
    fn header_layout_is_the_documented_one() {
        assert_eq!(raw(0x11, 1, 0x0403_0201, b"xy"), [0x11, 1, 0, 0, 1, 2, 3, 4, 2, 0, 0, 0, b'x', b'y']);
    }

    #[test]
    fn reserved_bits_and_long_payloads_are_violations() {
        assert!(all(&raw(0x12, 2, 1, b""), 100).is_err());
        assert!(all(&raw(0x12, 1, 1, b""), 100).is_err());
        let mut reserved = raw(0x12, 0, 1, b"");
        reserved[3] = 1;
        assert!(all(&reserved, 100).is_err());
        let mut long = raw(0x12, 0, 1, b"");
        long[8..12].copy_from_slice(&65_537_u32.to_le_bytes());
        assert!(all(&long, 100).is_err());
    }

    #[test]
    fn spawn_parts_are_joined_around_other_frames() {
        let mut stream = raw(kind::SPAWN, 1, 3, b"ab");
        stream.extend(raw(kind::STDIN, 0, 2, b"z"));
        stream.extend(raw(kind::SPAWN, 1, 3, b"cd"));
        stream.extend(raw(kind::SPAWN, 0, 3, b"e"));
        let frames = all(&stream, 5).unwrap();
        assert_eq!(frames.len(), 2);
        assert_eq!(frames[1], Frame { kind: kind::SPAWN, id: 3, payload: b"abcde".to_vec() });
    }

    #[test]
    fn spawn_parts_are_bounded_and_not_mixed() {
        let mut mixed = raw(kind::SPAWN, 1, 3, b"ab");
        mixed.extend(raw(kind::SPAWN, 0, 4, b"cd"));
        assert!(all(&mixed, 100).is_err());
        let mut kinds = raw(kind::SPAWN, 1, 3, b"ab");
        kinds.extend(raw(kind::RUN, 0, 3, b"cd"));
        assert!(all(&kinds, 100).is_err());
        let part = raw(kind::SPAWN, 1, 3, &vec![0; MAX_PAYLOAD]);
        assert!(all(&part.repeat(16), 4096).is_ok());
        assert!(all(&part.repeat(17), 4096).is_err());
    }
}
