// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The tar reader on archives that are built here, header by header.

use std::io;

use crate::root::tar::{Archive, Entry, Kind, BLOCK};

/// A header as POSIX lays it out, with a right checksum.
pub fn header(name: &[u8], flag: u8, size: u64, link: &[u8]) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut put = |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, if flag == b'5' { b"0000755\0" } else { b"0000644\0" });
    put(108, b"0001750\0");
    put(116, b"0001751\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"14000000000\0");
    put(156, &[flag]);
    put(157, link);
    put(257, b"ustar\x0000");
    put(329, b"0000005\0");
    put(337, b"0000001\0");
    seal(&mut block);
    block
}

pub fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A member with content, padded to whole blocks.
pub fn member(name: &[u8], flag: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, flag, content.len() as u64, b"");
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = key.len() + value.len() + 3;
    let length = (1..20).find(|digits| (body + digits).to_string().len() == *digits).unwrap() + body;
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

pub fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

type Members = Vec<(Entry, Vec<u8>)>;

pub fn read_all(bytes: &[u8]) -> io::Result<Members> {
    let mut archive = Archive::new(bytes);
    let mut members = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut content = Vec::new();
        let mut buffer = [0; 100];
        loop {
            match archive.read(&mut buffer)? {
                0 => break,
                count => content.extend_from_slice(&buffer[..count]),
            }
        }
        members.push((entry, content));
    }
    Ok(members)
}

fn error(bytes: &[u8]) -> String {
    read_all(bytes).unwrap_err().to_string()
}

#[test]
fn ustar_members() {
    use Kind::{CharDevice, Directory, Fifo, File, HardLink, Symlink};
    let mut bytes = member(b"bin/", b'5', b"");
    bytes.extend(member(b"bin/a", b'0', b"content"));
    bytes.extend(header(b"bin/b", b'1', 99, b"bin/a"));
    bytes.extend(header(b"bin/c", b'2', 0, b"../x"));
    bytes.extend(header(b"dev/n", b'3', 0, b""));
    bytes.extend(header(b"dev/f", b'6', 0, b""));
    bytes.extend(end());
    let members = read_all(&bytes).unwrap();
    let kinds: Vec<Kind> = members.iter().map(|(entry, _)| entry.kind).collect();
    assert_eq!(kinds, [Directory, File, HardLink, Symlink, CharDevice, Fifo]);
    let (file, content) = &members[1];
    assert_eq!(content, b"content");
    assert_eq!((file.uid, file.gid, file.mode, file.size), (1000, 1001, 0o644, 7));
    assert_eq!(file.mtime, (0o14_000_000_000, 0));
    // A size on a link is not followed by content.
    assert_eq!(members[2].0.link, b"bin/a");
    assert_eq!(members[4].0.device, (5, 1));
}

#[test]
fn prefix_is_used_in_posix_headers_only() {
    let mut posix = header(b"name", b'0', 0, b"");
    posix[345..348].copy_from_slice(b"dir");
    seal(&mut posix);
    let mut gnu = posix.clone();
    gnu[257..265].copy_from_slice(b"ustar  \0");
    seal(&mut gnu);
    assert_eq!(read_all(&[posix, end()].concat()).unwrap()[0].0.path, b"dir/name");
    assert_eq!(read_all(&[gnu, end()].concat()).unwrap()[0].0.path, b"name");
}

#[test]
fn long_names_of_both_kinds() {
    let long = [b"d/".to_vec(), vec![b'n'; 250]].concat();
    let mut bytes = member(b"././@LongLink", b'L', &[long.clone(), vec![0]].concat());
    bytes.extend(member(b"././@LongLink", b'K', &[long.clone(), vec![0]].concat()));
    bytes.extend(header(b"short", b'2', 0, b"short"));
    bytes.extend(member(b"pax", b'x', &[record("path", &long), record("mtime", b"12.5")].concat()));
    bytes.extend(member(b"short", b'0', b"x"));
    bytes.extend(member(b"plain", b'0', b"y"));
    bytes.extend(end());
    let members = read_all(&bytes).unwrap();
    assert_eq!((&members[0].0.path, &members[0].0.link), (&long, &long));
    assert_eq!((&members[1].0.path, members[1].0.mtime), (&long, (12, 500_000_000)));
    // Overrides end with the member they stand before.
    assert_eq!((&members[2].0.path[..], members[2].0.mtime.1), (&b"plain"[..], 0));
}

#[test]
fn pax_size_and_global_headers() {
    let mut bytes = member(b"g", b'g', &record("uid", b"77"));
    bytes.extend(member(b"x", b'x', &record("size", b"3")));
    let mut file = header(b"f", b'0', 0, b"");
    file.extend_from_slice(b"abc");
    file.resize(2 * BLOCK, 0);
    bytes.extend(file);
    bytes.extend(end());
    let members = read_all(&bytes).unwrap();
    assert_eq!((members[0].0.uid, &members[0].1[..]), (77, &b"abc"[..]));
}

#[test]
fn damaged_archives_are_refused() {
    let good = [member(b"f", b'0', &[7; 700]), end()].concat();
    assert!(read_all(&good).is_ok());
    for at in (0..500).filter(|at| !(148..156).contains(at)) {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(error(&bad).contains("checksum"), "byte {at}");
    }
    assert!(error(&good[..1_536]).contains("end mark"));
    assert!(error(&good[..1_600]).contains("end mark"));
    assert!(error(&good[..1_000]).contains("truncated"));
    assert!(error(b"").contains("end mark"));
    assert!(
        error(&[b'x'; 4_096]).contains("not a tar archive") || error(&[b'x'; 4_096]).contains("malformed")
    );
}

#[test]
fn members_that_cannot_be_right_are_refused() {
    let mut long = header(b"f", b'0', 0, b"");
    long[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    seal(&mut long);
    let mut owner = header(b"f", b'0', 0, b"");
    owner[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    seal(&mut owner);
    let long_name = member(b"x", b'x', &record("path", &[b'n'; 4_096]));
    for (bytes, reason) in [
        (long, "too large"),
        (owner, "out of range"),
        (header(b"", b'0', 0, b""), "empty"),
        (header(b"f", b'2', 0, b""), "without a target"),
        (header(b"f", b'S', 0, b""), "sparse"),
        (header(b"f", b'Z', 0, b""), "0x5a"),
        (header(b"x", b'x', 300_000, b""), "too large"),
        ([long_name, header(b"f", b'0', 0, b"")].concat(), "over-long"),
        (member(b"x", b'x', b"12 path=a").repeat(1), "pax"),
        (member(b"x", b'x', b"").repeat(18), "in a row"),
    ] {
        let text = error(&[bytes, end()].concat());
        assert!(text.contains(reason), "{text}");
    }
}
