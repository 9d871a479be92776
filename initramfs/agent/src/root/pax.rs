// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Pax extended headers (POSIX.1-2017, pax, "pax Extended Header") and the number formats of tar headers.

/// Values from a pax header that override the next member's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

const XATTR: &[u8] = b"SCHILY.xattr.";

impl Overrides {
    /// Adds the records of one header, "LENGTH KEY=VALUE\n" each. Unknown keys are passed over, as POSIX asks, but for
    /// sparse files, whose content would come out wrong.
    pub fn add(&mut self, mut records: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "malformed pax header";
        while !records.is_empty() {
            let space = records.iter().take(20).position(|byte| *byte == b' ').ok_or(BAD)?;
            let (digits, _) = records.split_at(space);
            let length = usize::try_from(decimal(digits).ok_or(BAD)?).map_err(|_| BAD)?;
            let (record, rest) = records.split_at_checked(length).ok_or(BAD)?;
            let record = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n")).ok_or(BAD)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(BAD)?;
            let (key, value) = record.split_at(equals);
            self.set(key, value.get(1..).unwrap_or_default())?;
            records = rest;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        const BAD: &str = "malformed number in a pax header";
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link = text(value)?,
            b"size" => self.size = Some(decimal(value).ok_or(BAD)?),
            b"uid" => self.uid = Some(id(decimal(value).ok_or(BAD)?)?),
            b"gid" => self.gid = Some(id(decimal(value).ok_or(BAD)?)?),
            b"mtime" => self.mtime = Some(time(value).ok_or(BAD)?),
            _ if key.starts_with(b"GNU.sparse.") => return Err("sparse members are not supported"),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    if name == b"security.capability" || name.starts_with(b"user.") {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// A path: no NUL; the empty value takes an override back.
fn text(value: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err("NUL byte in a pax path");
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// A user or group id; 2^32-1 means "unchanged" to chown.
pub fn id(value: u64) -> Result<u32, &'static str> {
    u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or("user or group id out of range")
}

/// Digits only: no sign, no space, no overflow.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        value.checked_mul(10)?.checked_add(digit.into())
    })
}

/// Seconds with an optional sign and fraction → (floor seconds, nanoseconds).
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let mut nanoseconds = 0_u32;
    if let Some(fraction) = parts.next() {
        if !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        for place in 0..9 {
            nanoseconds = nanoseconds * 10 + u32::from(fraction.get(place).map_or(0, |byte| byte - b'0'));
        }
    }
    match (negative, nanoseconds) {
        (false, _) => Some((seconds, nanoseconds)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}

/// A number field of a tar header: octal text, or base 256 when the first bit is set (GNU).
pub fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        return rest.iter().try_fold(u64::from(first & 0x7f), |value, byte| {
            (value >> 56 == 0).then_some((value << 8) | u64::from(*byte))
        });
    }
    let end = field.iter().rposition(|byte| !matches!(byte, 0 | b' ')).map_or(0, |last| last + 1);
    let digits = field.get(..end)?;
    let start = digits.iter().position(|byte| *byte != b' ').unwrap_or(end);
    digits.get(start..)?.iter().try_fold(0_u64, |value, byte| {
        let digit = matches!(byte, b'0'..=b'7').then(|| byte - b'0')?;
        (value >> 61 == 0).then_some((value << 3) | u64::from(digit))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn records_override_and_unknown_ones_pass() {
        let mut overrides = Overrides::default();
        overrides.add(b"12 path=a/b\n17 comment=x=y\nz\n16 size=1234567\n22 mtime=-1.250000000\n").unwrap();
        assert_eq!(overrides.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(overrides.size, Some(1_234_567));
        assert_eq!(overrides.mtime, Some((-2, 750_000_000)));
    }

    #[test]
    fn xattrs_keep_binary_values() {
        let mut overrides = Overrides::default();
        overrides.add(b"39 SCHILY.xattr.security.capability=\0\n\n").unwrap();
        assert_eq!(overrides.xattrs, [(b"security.capability".to_vec(), b"\0\n".to_vec())]);
        overrides.add(b"36 SCHILY.xattr.trusted.overlay.x=1\n").unwrap();
        assert_eq!(overrides.xattrs.len(), 1);
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            &b"path=a\n"[..],
            b" path=a\n",
            b"9 path=a\n\n",
            b"99 path=a\n",
            b"0 path=a\n",
            b"9 path=a.",
            b"7 path\n",
            b"-9 path=a\n",
            b"99999999999999999999 path=a\n",
            b"11 path=a\0b\n",
            b"11 size=-12\n",
            b"10 uid=1x1\n",
            b"18 uid=4294967295\n",
            b"22 GNU.sparse.major=1\n",
        ] {
            assert!(Overrides::default().add(records).is_err(), "{}", String::from_utf8_lossy(records));
        }
    }

    #[test]
    fn numbers_of_both_kinds() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"   644 \0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"777777777777"), Some(0o777_777_777_777));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), None);
        assert_eq!(number(b"0008\0\0\0\0"), None);
        assert_eq!(number(b"7777777777777777777777777"), None);
        assert_eq!(number(b""), None);
    }
}
