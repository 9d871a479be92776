// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! A bounded tar reader: ustar, pax and GNU, as a stream of members. Touches no file system (see extract.rs).

use std::io::{self, Read};

use crate::root::pax::{self, Overrides};

pub const BLOCK: usize = 512;
/// The kernel's `PATH_MAX` without the terminating NUL.
const MAX_NAME: usize = 4_095;
/// Extended headers, long names included; xattr values are at most 64 KiB each.
const MAX_EXTENDED: u64 = 256 * 1_024;
/// Extended headers in a row: they add up in memory.
const MAX_EXTENDED_COUNT: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One member of the archive; the content of a file follows through `Archive::read`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    /// As in the archive: not normalised, not empty, no NUL.
    pub path: Vec<u8>,
    /// Target of a hard or symbolic link.
    pub link: Vec<u8>,
    /// Permission bits, set-id and sticky bits: 0o7777 at most.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn invalid(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

/// An archive that is read once, front to back.
pub struct Archive<R> {
    source: R,
    /// Bytes of the current member's content, and of its padding, that have not been read.
    content: u64,
    padding: u64,
    global: Overrides,
}

impl<R: Read> Archive<R> {
    pub fn new(source: R) -> Self {
        Self { source, content: 0, padding: 0, global: Overrides::default() }
    }

    /// The next member, `None` at the archive's end mark. Whatever is unread of the last member is skipped.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut overrides = self.global.clone();
        for _ in 0..=MAX_EXTENDED_COUNT {
            let left = self.content + self.padding;
            if io::copy(&mut (&mut self.source).take(left), &mut io::sink())? != left {
                return Err(invalid("archive is truncated"));
            }
            (self.content, self.padding) = (0, 0);

            let mut block = [0; BLOCK];
            self.source.read_exact(&mut block).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => invalid("archive ends without its end mark"),
                _ => error,
            })?;
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let header = Header::parse(&block)?;
            match header.type_flag {
                b'x' => overrides.add(&self.extended(&header)?).map_err(invalid)?,
                b'g' => {
                    let records = self.extended(&header)?;
                    self.global.add(&records).map_err(invalid)?;
                    self.global.xattrs.clear();
                    overrides = self.global.clone();
                }
                b'L' => overrides.path = Some(trim_nul(&self.extended(&header)?).to_vec()),
                b'K' => overrides.link = Some(trim_nul(&self.extended(&header)?).to_vec()),
                _ => return self.member(&block, &header, overrides).map(Some),
            }
        }
        Err(invalid("too many extended headers in a row"))
    }

    /// Reads content of the current member; 0 is its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.source).take(self.content).read(buffer)?;
        if count == 0 && self.content > 0 && !buffer.is_empty() {
            return Err(invalid("archive is truncated"));
        }
        self.content -= count as u64;
        Ok(count)
    }

    fn expect_content(&mut self, size: u64) -> io::Result<()> {
        let block = BLOCK as u64;
        self.padding = (block - size % block) % block;
        self.content = size;
        // So that the sum cannot overflow.
        if size > i64::MAX as u64 {
            return Err(invalid("member is too large"));
        }
        Ok(())
    }

    fn extended(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        if header.size > MAX_EXTENDED {
            return Err(invalid("extended header is too large"));
        }
        self.expect_content(header.size)?;
        let mut records = Vec::new();
        (&mut self.source).take(header.size).read_to_end(&mut records)?;
        if records.len() as u64 != header.size {
            return Err(invalid("archive is truncated"));
        }
        self.content = 0;
        Ok(records)
    }

    fn member(&mut self, block: &[u8; BLOCK], header: &Header, overrides: Overrides) -> io::Result<Entry> {
        let path = overrides.path.unwrap_or_else(|| header.path(block));
        let link = overrides.link.unwrap_or_else(|| trim_nul(slice(block, 157, 100)).to_vec());
        if path.is_empty()
            || path.len() > MAX_NAME
            || link.len() > MAX_NAME
            || path.contains(&0)
            || link.contains(&0)
        {
            return Err(invalid("member with an empty, over-long or NUL-carrying name"));
        }
        let kind = match header.type_flag {
            // Before ustar a directory was a file whose name ends with a slash.
            b'0' | b'7' | 0 if path.ends_with(b"/") => Kind::Directory,
            b'0' | b'7' | 0 => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(invalid("sparse members are not supported")),
            other => return Err(invalid(format!("member type 0x{other:02x} is not supported"))),
        };
        if matches!(kind, Kind::HardLink | Kind::Symlink) && link.is_empty() {
            return Err(invalid("link without a target"));
        }
        // Only files have content; old archives carry sizes for links and directories.
        let size = if kind == Kind::File { overrides.size.unwrap_or(header.size) } else { 0 };
        self.expect_content(size)?;
        let id = |from_pax: Option<u32>, offset: usize| match from_pax {
            Some(id) => Ok(id),
            None => field(block, offset, 8).and_then(|id| pax::id(id).map_err(invalid)),
        };
        let device = |offset: usize| {
            let wanted = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
            let number = if wanted { field(block, offset, 8)? } else { 0 };
            u32::try_from(number).map_err(|_| invalid("device number out of range"))
        };
        let mtime = match overrides.mtime {
            Some(time) => time,
            // A negative base-256 time is before 1970 by someone's mistake; take the epoch.
            None => {
                (pax::number(slice(block, 136, 12)).and_then(|time| i64::try_from(time).ok()).unwrap_or(0), 0)
            }
        };
        Ok(Entry {
            kind,
            path,
            link,
            mode: u32::try_from(field(block, 100, 8)? & 0o7777).unwrap_or(0),
            uid: id(overrides.uid, 108)?,
            gid: id(overrides.gid, 116)?,
            size,
            mtime,
            device: (device(329)?, device(337)?),
            xattrs: overrides.xattrs,
        })
    }
}

/// What is needed of a header before its meaning is known.
struct Header {
    type_flag: u8,
    size: u64,
    posix: bool,
}

impl Header {
    fn parse(block: &[u8; BLOCK]) -> io::Result<Self> {
        let stated = field(block, 148, 8)?;
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        if stated != sum {
            return Err(invalid("not a tar archive, or a damaged one: header checksum differs"));
        }
        let type_flag = slice(block, 156, 1).first().copied().unwrap_or(0);
        // GNU's magic is "ustar  ": there the prefix field holds other things.
        Ok(Self { type_flag, size: field(block, 124, 12)?, posix: slice(block, 257, 6) == b"ustar\0" })
    }

    fn path(&self, block: &[u8; BLOCK]) -> Vec<u8> {
        let name = trim_nul(slice(block, 0, 100));
        let prefix = trim_nul(slice(block, 345, 155));
        if !self.posix || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }
}

fn slice(block: &[u8; BLOCK], offset: usize, length: usize) -> &[u8] {
    block.get(offset..offset + length).unwrap_or_default()
}

fn field(block: &[u8; BLOCK], offset: usize, length: usize) -> io::Result<u64> {
    pax::number(slice(block, offset, length)).ok_or_else(|| invalid("malformed number in a header"))
}

fn trim_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}
