// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! dm-verity: parameters from the measured command line or a workload document, and the layers below its root hash.

use crate::failure::{Code, Failure};
use crate::root::mapper::{Mapper, Target};

pub const BLOCK_BYTES: u64 = 4_096;
/// Container engines allow as many; overlayfs takes 500.
pub const MAX_LAYERS: usize = 127;
const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES / 512;
/// Keeps every product of a block count below 2^63.
pub const MAX_BLOCKS: u64 = 1 << 48;
const MAX_SALT_BYTES: usize = 256;

/// SHA-256, 4,096-byte blocks, hash type 1; EROFS images one behind the other, then the tree, on the same device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verity {
    root_hash: String,
    salt: String,
    /// Blocks of each layer, the lowest first.
    layers: Vec<u64>,
    pub data_blocks: u64,
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Verity {
    /// `salt` is `-` for none. What is accepted here goes into device-mapper tables unchanged.
    pub fn new(root_hash: &str, salt: &str, layers: Vec<u64>) -> Result<Self, &'static str> {
        if root_hash.len() != 64 || !is_lower_hex(root_hash) {
            return Err("root hash is not 64 lower-case hex digits");
        }
        let hex_salt = !salt.is_empty() && salt.len() % 2 == 0 && salt.len() <= 2 * MAX_SALT_BYTES;
        if salt != "-" && !(hex_salt && is_lower_hex(salt)) {
            return Err("salt is neither - nor 1 to 256 bytes in lower-case hex digits");
        }
        if !(1..=MAX_LAYERS).contains(&layers.len()) {
            return Err("not 1 to 127 layers");
        }
        let total = layers.iter().try_fold(0_u64, |sum, blocks| sum.checked_add(*blocks));
        match total {
            Some(data_blocks) if data_blocks <= MAX_BLOCKS && !layers.contains(&0) => {
                Ok(Self { root_hash: root_hash.to_owned(), salt: salt.to_owned(), layers, data_blocks })
            }
            _ => Err("number of data blocks is not one of at most 2^48"),
        }
    }

    /// Parses `ROOTHASH:SALT:BLOCKS`, one layer.
    pub fn parse(value: &str) -> Result<Self, &'static str> {
        let mut parts = value.split(':');
        let (Some(root_hash), Some(salt), Some(blocks), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("not of the form ROOTHASH:SALT:BLOCKS");
        };
        let digits = !blocks.is_empty()
            && !blocks.starts_with('0')
            && blocks.bytes().all(|byte| byte.is_ascii_digit());
        match blocks.parse() {
            Ok(blocks) if digits => Self::new(root_hash, salt, vec![blocks]),
            _ => Err("number of data blocks is not a decimal number of at most 2^48"),
        }
    }

    /// Parameters of the `verity` target (Documentation/admin-guide/device-mapper/verity.rst).
    ///
    /// Both ways of not getting a block end the guest: the disk is the host's, and a program that meets an error
    /// where a file was promised goes on without it (drivers/md/dm-verity-target.c, `verity_finish_io`).
    fn table(&self, device: &str) -> String {
        let Self { root_hash, salt, data_blocks, .. } = self;
        // The block between data and tree is veritysetup's superblock.
        let tree = data_blocks + 1;
        format!(
            "1 {device} {device} {BLOCK_BYTES} {BLOCK_BYTES} {data_blocks} {tree} sha256 {root_hash} {salt} \
             2 panic_on_corruption panic_on_error"
        )
    }

    /// Where each layer begins and how long it is, in sectors.
    fn stretches(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.layers.iter().scan(0, |next, blocks| {
            let start = *next;
            *next += blocks;
            Some((start * SECTORS_PER_BLOCK, blocks * SECTORS_PER_BLOCK))
        })
    }

    /// Opens `device` through dm-verity; the results are the verified layers' paths, the lowest first.
    ///
    /// All layers lie under one tree, so the one root hash says which they are and in what order.
    pub fn open(&self, device: &str, device_bytes: u64) -> Result<Vec<String>, Failure> {
        if device_bytes / BLOCK_BYTES <= self.data_blocks {
            return Err(Failure::new(Code::Rootfs, "disk is smaller than the verity data and its hash tree"));
        }
        let mapper = Mapper::open()?;
        let (sectors, table) = (self.data_blocks * SECTORS_PER_BLOCK, self.table(device));
        let whole = mapper.create("rootfs", &Target { sectors, kind: "verity", parameters: &table })?;
        if self.layers.len() == 1 {
            return Ok(vec![whole]);
        }
        let layer = |(number, (start, sectors))| {
            // Documentation/admin-guide/device-mapper/linear.rst
            let table = format!("{whole} {start}");
            let target = Target { sectors, kind: "linear", parameters: &table };
            mapper.create(&format!("layer{number}"), &target)
        };
        self.stretches().enumerate().map(layer).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    const PANIC: &str = "2 panic_on_corruption panic_on_error";

    #[test]
    fn table_is_the_documented_one() {
        let verity = Verity::parse(&format!("{HASH}:0badcafe:256")).unwrap();
        let expected = format!("1 /dev/vda /dev/vda 4096 4096 256 257 sha256 {HASH} 0badcafe {PANIC}");
        assert_eq!(verity.table("/dev/vda"), expected);
        let unsalted = Verity::parse(&format!("{HASH}:-:1")).unwrap();
        assert!(unsalted.table("/dev/vda").contains(" 1 2 sha256 "));
        assert!(unsalted.table("/dev/vda").ends_with(&format!(" - {PANIC}")));
    }

    #[test]
    fn malformed_parameters_are_refused() {
        let long_salt = "ab".repeat(257);
        for value in [
            String::new(),
            HASH.to_owned(),
            format!("{HASH}:-"),
            format!("{HASH}:-:"),
            format!("{HASH}:-:0"),
            format!("{HASH}:-:+1"),
            format!("{HASH}:-:01"),
            format!("{HASH}:-:1:"),
            format!("{HASH}:-:281474976710657"),
            format!("{HASH}:-:99999999999999999999999"),
            format!("{HASH}::1"),
            format!("{HASH}:abc:1"),
            format!("{HASH}:zz:1"),
            format!("{HASH}:{long_salt}:1"),
            format!("{}:-:1", &HASH[1..]),
            format!("{}:-:1", HASH.to_uppercase()),
        ] {
            assert!(Verity::parse(&value).is_err(), "{value}");
        }
        assert!(Verity::parse(&format!("{HASH}:{}:281474976710656", "ab".repeat(256))).is_ok());
    }

    #[test]
    fn layers_lie_one_behind_the_other() {
        let verity = Verity::new(HASH, "-", vec![3, 1, 2]).unwrap();
        assert!(verity.table("/dev/vda").contains(" 6 7 sha256 "));
        let found: Vec<(u64, u64)> = verity.stretches().collect();
        assert_eq!(found, [(0, 24), (24, 8), (32, 16)]);
    }

    #[test]
    fn layers_that_cannot_be_are_refused() {
        assert!(Verity::new(HASH, "-", vec![1; MAX_LAYERS]).is_ok());
        let whole = MAX_BLOCKS;
        for layers in
            [vec![], vec![1; MAX_LAYERS + 1], vec![1, 0], vec![whole, 1], vec![u64::MAX, 1], vec![whole + 1]]
        {
            assert!(Verity::new(HASH, "-", layers.clone()).is_err(), "{layers:?}");
        }
    }
}
