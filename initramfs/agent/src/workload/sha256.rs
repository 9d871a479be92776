// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! SHA-256 (FIPS 180-4), in safe code.

use std::io::{self, Read};

pub const BYTES: usize = 32;
const BLOCK: usize = 64;
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
#[rustfmt::skip]
const ROUND: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// A digest in the making.
pub struct Sha256 {
    state: [u32; 8],
    /// What does not fill a block yet.
    rest: Vec<u8>,
    length: u64,
}

impl Default for Sha256 {
    fn default() -> Self {
        Self { state: START, rest: Vec::new(), length: 0 }
    }
}

impl Sha256 {
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if !self.rest.is_empty() {
            let (head, tail) = bytes.split_at((BLOCK - self.rest.len()).min(bytes.len()));
            self.rest.extend_from_slice(head);
            bytes = tail;
            if let Some((block, [])) = self.rest.split_first_chunk::<BLOCK>() {
                compress(&mut self.state, block);
                self.rest.clear();
            }
        }
        while let Some((block, tail)) = bytes.split_first_chunk::<BLOCK>() {
            compress(&mut self.state, block);
            bytes = tail;
        }
        self.rest.extend_from_slice(bytes);
    }

    pub fn finish(mut self) -> [u8; BYTES] {
        let bits = self.length.wrapping_mul(8);
        self.update(&[0x80]);
        let zeros = (2 * BLOCK - 8 - self.rest.len()) % BLOCK;
        self.update([0; BLOCK].get(..zeros).unwrap_or_default());
        self.update(&bits.to_be_bytes());
        let mut digest = [0; BYTES];
        for (slot, byte) in digest.iter_mut().zip(self.state.iter().flat_map(|word| word.to_be_bytes())) {
            *slot = byte;
        }
        digest
    }
}

pub fn digest(bytes: &[u8]) -> [u8; BYTES] {
    let mut hash = Sha256::default();
    hash.update(bytes);
    hash.finish()
}

/// The 32 bytes of 64 lower-case hexadecimal digits.
pub fn from_hex(text: &str) -> Option<[u8; BYTES]> {
    let mut digest = [0; BYTES];
    if text.len() != 2 * BYTES || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (slot, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *slot = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

pub fn to_hex(digest: &[u8]) -> String {
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

// The standard's names.
#[allow(clippy::many_single_char_names)]
fn compress(state: &mut [u32; 8], block: &[u8; BLOCK]) {
    let mut window = [0_u32; 16];
    for (word, bytes) in window.iter_mut().zip(block.chunks_exact(4)) {
        *word = u32::from_be_bytes(bytes.try_into().unwrap_or_default());
    }
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for constant in ROUND {
        let [word, next, .., seventh, _, _, _, _, fifteenth_less, _] = window;
        let choice = (e & f) ^ (!e & g);
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let first = h.wrapping_add(sum1).wrapping_add(choice).wrapping_add(constant).wrapping_add(word);
        let majority = (a & b) ^ (a & c) ^ (b & c);
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        h = g;
        g = f;
        f = e;
        e = d.wrapping_add(first);
        d = c;
        c = b;
        b = a;
        a = first.wrapping_add(sum0).wrapping_add(majority);
        let small0 = next.rotate_right(7) ^ next.rotate_right(18) ^ (next >> 3);
        let small1 =
            fifteenth_less.rotate_right(17) ^ fifteenth_less.rotate_right(19) ^ (fifteenth_less >> 10);
        window.rotate_left(1);
        if let Some(last) = window.last_mut() {
            *last = word.wrapping_add(small0).wrapping_add(seventh).wrapping_add(small1);
        }
    }
    for (old, new) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *old = old.wrapping_add(new);
    }
}

/// Hashes what is read through it.
pub struct Hashed<R> {
    source: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    pub fn new(source: R) -> Self {
        Self { source, hash: Sha256::default() }
    }

    /// Reads to the end: the digest of everything, and how many bytes that were.
    pub fn finish(mut self) -> io::Result<([u8; BYTES], u64)> {
        io::copy(&mut self, &mut io::sink())?;
        let length = self.hash.length;
        Ok((self.hash.finish(), length))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn published_vectors() {
        // FIPS 180-4 examples and NIST's long message.
        for (text, expected) in [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ] {
            assert_eq!(to_hex(&digest(text.as_bytes())), expected);
        }
        let million = vec![b'a'; 1_000_000];
        let expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(to_hex(&digest(&million)), expected);
        assert_eq!(from_hex(expected), Some(digest(&million)));
    }

    #[test]
    fn pieces_do_not_matter() {
        let bytes: Vec<u8> = (0..1_000_u32).map(|at| (at % 251).to_le_bytes()[0]).collect();
        for length in [0, 1, 54, 55, 56, 63, 64, 65, 119, 120, 128, 1_000] {
            let whole = digest(&bytes[..length]);
            for piece in [1, 3, 63, 64, 65, 200] {
                let mut hash = Sha256::default();
                bytes[..length].chunks(piece).for_each(|part| hash.update(part));
                assert_eq!(hash.finish(), whole, "{length} in pieces of {piece}");
            }
            let mut read = Hashed::new(&bytes[..length]);
            let _ = read.read(&mut [0; 7]).unwrap();
            assert_eq!(read.finish().unwrap(), (whole, length as u64));
        }
    }

    #[test]
    fn other_texts_are_no_digests() {
        for text in [String::new(), "a".repeat(63), "A".repeat(64), "g".repeat(64), "ä".repeat(32)] {
            assert_eq!(from_hex(&text), None);
        }
    }
}
