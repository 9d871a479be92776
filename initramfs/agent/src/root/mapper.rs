// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Device mapper: read-only block devices of one target each.

use std::fs::{File, OpenOptions};
use std::io;

use crate::failure::{Code, Context, Failure};
use crate::sys;

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

/// What a device shows: `sectors` of 512 bytes, by the target called `kind` with these parameters.
pub struct Target<'a> {
    pub sectors: u64,
    pub kind: &'a str,
    pub parameters: &'a str,
}

pub struct Mapper {
    control: File,
}

impl Mapper {
    pub fn open() -> Result<Self, Failure> {
        let path = "/dev/mapper/control";
        let control = OpenOptions::new().read(true).write(true).open(path).context(Code::Rootfs, path)?;
        Ok(Self { control })
    }

    /// Makes a device; the result is its path.
    pub fn create(&self, name: &str, target: &Target) -> Result<String, Failure> {
        let step = |what| format!("dm-{} {name}: {what}", target.kind);
        let created = self.call(DEV_CREATE, request(name, 0, None)).context(Code::Rootfs, step("create"))?;
        self.call(TABLE_LOAD, request(name, READ_ONLY, Some(target))).context(Code::Rootfs, step("table"))?;
        self.call(DEV_SUSPEND, request(name, 0, None)).context(Code::Rootfs, step("resume"))?;
        Ok(format!("/dev/dm-{}", minor_number(&created)))
    }

    fn call(&self, number: u64, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        // _IOWR(0xfd, number, struct dm_ioctl)
        let request = (3 << 30) | ((IOCTL_BYTES as u64) << 16) | (0xfd << 8) | number;
        sys::device_mapper(&self.control, request, &mut buffer).map(|()| buffer)
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

/// A `struct dm_ioctl`, with one target when given.
fn request(name: &str, flags: u32, target: Option<&Target>) -> Vec<u8> {
    let extra = target.map_or(0, |target| TARGET_SPEC_BYTES + target.parameters.len() + 1);
    let mut buffer = vec![0; IOCTL_BYTES + extra.next_multiple_of(8)];
    let total = u32::try_from(buffer.len()).unwrap_or(0);
    put(&mut buffer, 0, &4_u32.to_le_bytes());
    put(&mut buffer, 12, &total.to_le_bytes());
    put(&mut buffer, 16, &IOCTL_BYTES_U32.to_le_bytes());
    put(&mut buffer, FLAGS_OFFSET, &flags.to_le_bytes());
    put(&mut buffer, NAME_OFFSET, name.as_bytes());
    if let Some(Target { sectors, kind, parameters }) = target {
        put(&mut buffer, 20, &1_u32.to_le_bytes());
        put(&mut buffer, IOCTL_BYTES + 8, &sectors.to_le_bytes());
        put(&mut buffer, IOCTL_BYTES + 24, kind.as_bytes());
        put(&mut buffer, IOCTL_BYTES + TARGET_SPEC_BYTES, parameters.as_bytes());
    }
    buffer
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn request_layout_follows_the_kernel_header() {
        let plain = request("rootfs", 0, None);
        assert_eq!(plain.len(), 312);
        assert_eq!(plain[12..16], 312_u32.to_le_bytes());
        assert_eq!(&plain[48..55], b"rootfs\0");
        let target = Target { sectors: 80, kind: "verity", parameters: "a b" };
        let load = request("rootfs", READ_ONLY, Some(&target));
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
