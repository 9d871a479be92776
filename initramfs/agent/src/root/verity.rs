// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! dm-verity: parameters from the measured command line, and the device-mapper calls that open the device.

use std::fs::OpenOptions;
use std::io;

use crate::failure::{Code, Context, Failure};
use crate::sys;

pub const BLOCK_BYTES: u64 = 4_096;
const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES / 512;
/// Keeps every product of a block count below 2^63.
const MAX_BLOCKS: u64 = 1 << 48;
const MAX_SALT_BYTES: usize = 256;

// include/uapi/linux/dm-ioctl.h
const IOCTL_BYTES_U32: u32 = 312;
const IOCTL_BYTES: usize = IOCTL_BYTES_U32 as usize;
const TARGET_SPEC_BYTES: usize = 40;
const FLAGS_OFFSET: usize = 28;
const DEVICE_OFFSET: usize = 40;
const NAME_OFFSET: usize = 48;
const READ_ONLY: u32 = 1;
const DEV_CREATE: u64 = 3;
const DEV_SUSPEND: u64 = 6;
const TABLE_LOAD: u64 = 9;
const NAME: &[u8] = b"rootfs";

/// `sev_agent.verity`: SHA-256, 4,096-byte blocks, hash type 1; the tree follows the data on the same device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verity {
    root_hash: String,
    salt: String,
    pub data_blocks: u64,
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Verity {
    /// Parses `ROOTHASH:SALT:BLOCKS`. What is accepted here goes into the device-mapper table unchanged.
    pub fn parse(value: &str) -> Result<Self, &'static str> {
        let mut parts = value.split(':');
        let (Some(root_hash), Some(salt), Some(blocks), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("not of the form ROOTHASH:SALT:BLOCKS");
        };
        if root_hash.len() != 64 || !is_lower_hex(root_hash) {
            return Err("root hash is not 64 lower-case hex digits");
        }
        let hex_salt = !salt.is_empty() && salt.len() % 2 == 0 && salt.len() <= 2 * MAX_SALT_BYTES;
        if salt != "-" && !(hex_salt && is_lower_hex(salt)) {
            return Err("salt is neither - nor 1 to 256 bytes in lower-case hex digits");
        }
        let digits = !blocks.is_empty()
            && !blocks.starts_with('0')
            && blocks.bytes().all(|byte| byte.is_ascii_digit());
        match blocks.parse() {
            Ok(data_blocks) if digits && data_blocks <= MAX_BLOCKS => {
                Ok(Self { root_hash: root_hash.to_owned(), salt: salt.to_owned(), data_blocks })
            }
            _ => Err("number of data blocks is not a decimal number of at most 2^48"),
        }
    }

    /// Parameters of the `verity` target (Documentation/admin-guide/device-mapper/verity.rst).
    ///
    /// Both ways of not getting a block end the guest: the disk is the host's, and a program that meets an error
    /// where a file was promised goes on without it (drivers/md/dm-verity-target.c, `verity_finish_io`).
    fn table(&self, device: &str) -> String {
        let Self { root_hash, salt, data_blocks } = self;
        // The block between data and tree is veritysetup's superblock.
        let tree = data_blocks + 1;
        format!(
            "1 {device} {device} {BLOCK_BYTES} {BLOCK_BYTES} {data_blocks} {tree} sha256 {root_hash} {salt} \
             2 panic_on_corruption panic_on_error"
        )
    }

    /// Opens `device` through dm-verity; the result is the verified device's path.
    pub fn open(&self, device: &str, device_bytes: u64) -> Result<String, Failure> {
        if device_bytes / BLOCK_BYTES <= self.data_blocks {
            return Err(Failure::new(Code::Rootfs, "disk is smaller than the verity data and its hash tree"));
        }
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/mapper/control")
            .context(Code::Rootfs, "/dev/mapper/control")?;
        let call = |number: u64, mut buffer: Vec<u8>| -> io::Result<Vec<u8>> {
            // _IOWR(0xfd, number, struct dm_ioctl)
            let request = (3 << 30) | ((IOCTL_BYTES as u64) << 16) | (0xfd << 8) | number;
            sys::device_mapper(&control, request, &mut buffer).map(|()| buffer)
        };
        let created = call(DEV_CREATE, request(0, None)).context(Code::Rootfs, "dm-verity: create")?;
        call(
            TABLE_LOAD,
            request(READ_ONLY, Some((self.data_blocks * SECTORS_PER_BLOCK, &self.table(device)))),
        )
        .context(Code::Rootfs, "dm-verity: table")?;
        call(DEV_SUSPEND, request(0, None)).context(Code::Rootfs, "dm-verity: resume")?;
        Ok(format!("/dev/dm-{}", minor_number(&created)))
    }
}

/// Minor number in the kernel's `dev` field (`huge_encode_dev`: bits 0 to 7 and 20 up).
fn minor_number(buffer: &[u8]) -> u64 {
    let field = buffer.get(DEVICE_OFFSET..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
    let device = u64::from_le_bytes(field);
    (device & 0xff) | ((device >> 12) & 0xf_ff00)
}

fn put(buffer: &mut [u8], offset: usize, bytes: &[u8]) {
    for (slot, byte) in buffer.iter_mut().skip(offset).zip(bytes) {
        *slot = *byte;
    }
}

/// A `struct dm_ioctl`, with one target (length in sectors, parameters) when given.
fn request(flags: u32, target: Option<(u64, &str)>) -> Vec<u8> {
    let extra = target.map_or(0, |(_, table)| TARGET_SPEC_BYTES + table.len() + 1);
    let mut buffer = vec![0; IOCTL_BYTES + extra.next_multiple_of(8)];
    let total = u32::try_from(buffer.len()).unwrap_or(0);
    put(&mut buffer, 0, &4_u32.to_le_bytes());
    put(&mut buffer, 12, &total.to_le_bytes());
    put(&mut buffer, 16, &IOCTL_BYTES_U32.to_le_bytes());
    put(&mut buffer, FLAGS_OFFSET, &flags.to_le_bytes());
    put(&mut buffer, NAME_OFFSET, NAME);
    if let Some((sectors, table)) = target {
        put(&mut buffer, 20, &1_u32.to_le_bytes());
        put(&mut buffer, IOCTL_BYTES + 8, &sectors.to_le_bytes());
        put(&mut buffer, IOCTL_BYTES + 24, b"verity");
        put(&mut buffer, IOCTL_BYTES + TARGET_SPEC_BYTES, table.as_bytes());
    }
    buffer
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
    fn request_layout_follows_the_kernel_header() {
        let plain = request(0, None);
        assert_eq!(plain.len(), 312);
        assert_eq!(plain[12..16], 312_u32.to_le_bytes());
        let load = request(READ_ONLY, Some((80, "a b")));
        assert_eq!(load.len(), 312 + 48);
        assert_eq!(load[20], 1);
        assert_eq!(load[28], 1);
        assert_eq!(load[320], 80);
        assert_eq!(&load[336..343], b"verity\0");
        assert_eq!(&load[352..356], b"a b\0");
    }

    #[test]
    fn minor_numbers_are_decoded() {
        let mut buffer = vec![0; 312];
        put(&mut buffer, DEVICE_OFFSET, &0xfd03_u64.to_le_bytes());
        assert_eq!(minor_number(&buffer), 3);
        put(&mut buffer, DEVICE_OFFSET, &(0xfd03_u64 | (1 << 20)).to_le_bytes());
        assert_eq!(minor_number(&buffer), 0x103);
    }
}
