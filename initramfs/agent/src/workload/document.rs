// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! What a workload document says, checked in every value (docs/workload.md).

use std::ffi::CString;

use crate::process::command::{capability_mask, Command, Limit, CAPABILITIES, RLIMITS};
use crate::root::verity::{Verity, MAX_BLOCKS, MAX_LAYERS};
use crate::workload::fields::{Fields, Read};
use crate::workload::json::{self, Value};
use crate::workload::sha256;

pub const MAX_BYTES: usize = 1 << 20;
const VERSION: u64 = 1;
const MAX_INTEGER: u64 = (1 << 53) - 1;
const MAX_ENTRIES: usize = 4_096;
const MAX_GROUPS: usize = 1_024;
const FEW: usize = 64;
const MAX_FILE: u64 = 1_000_000;
const MAX_VARIABLE: u64 = 1 << 17;
const GRAMMARS: [&str; 5] = ["digits", "hex", "word", "path", "line"];

/// What the root is, and by what it is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    Tar { bytes: u64, sha256: [u8; sha256::BYTES] },
    Verity(Verity),
}

/// A variable that the host may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    grammar: usize,
    bytes: usize,
}

/// What the host may do to a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    pub stdin: bool,
    pub output: bool,
    pub resize: bool,
    /// Bit N: signal N.
    pub signals: u128,
    pub environment: Vec<Variable>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub command: Command,
    pub doors: Doors,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    pub name: String,
    pub count: u64,
    pub process: Process,
}

/// A tmpfs in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub target: String,
    pub bytes: u64,
    pub mode: String,
    pub executable: bool,
}

/// A file that the host may supply, of at most so many bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Supplied {
    pub target: String,
    pub bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub root: Root,
    pub process: Process,
    pub exec: Vec<Exec>,
    pub mounts: Vec<Mount>,
    pub files: Vec<Supplied>,
    pub hostname: String,
    pub host_names_it: bool,
    pub writable_bytes: u64,
    /// Whether the processor's report interface is in the container.
    pub reports: bool,
    pub end_on_refusal: bool,
}

impl Doors {
    pub fn takes_signal(&self, number: i32) -> bool {
        u32::try_from(number)
            .is_ok_and(|number| self.signals.checked_shr(number).is_some_and(|bits| bits & 1 == 1))
    }

    /// Of a process that the host chooses anyway.
    pub fn all() -> Self {
        Self { stdin: true, output: true, resize: true, signals: u128::MAX, environment: Vec::new() }
    }
}

impl Variable {
    /// Whether the host may give it this value.
    pub fn takes(&self, value: &[u8]) -> bool {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        value.len() <= self.bytes
            && match self.grammar {
                0 => value.iter().all(u8::is_ascii_digit),
                1 => value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
                2 => value.iter().all(word),
                3 => {
                    value.first() == Some(&b'/')
                        && value.iter().all(|byte| word(byte) || *byte == b'/')
                        && value.split(|byte| *byte == b'/').all(|part| part != b"..")
                }
                _ => std::str::from_utf8(value).is_ok_and(|text| !text.contains(char::is_control)),
            }
    }
}

/// Reads a whole document. The caller has compared its digest.
pub fn parse(bytes: &[u8]) -> Read<Document> {
    if bytes.len() > MAX_BYTES {
        return Err("more than 1 MiB".to_owned());
    }
    let mut top = Fields::new(json::parse(bytes)?, "")?;
    top.integer("version", VERSION, VERSION)?;
    let mut host = top.table("host")?;
    let document = Document {
        root: root(top.table("root")?)?,
        process: process(top.table("process")?)?,
        exec: top.list("exec", FEW, |item| exec(item.table("item")?))?,
        mounts: top.list("mounts", FEW, |item| mount(item.table("item")?))?,
        files: host.list("files", FEW, |item| supplied(item.table("item")?))?,
        hostname: named(&mut top, "hostname", b".-")?,
        host_names_it: host.flag("hostname")?,
        writable_bytes: top.integer("writable_bytes", 0, MAX_INTEGER)?,
        reports: top.choice("reports", &["none", "raw"])? == 1,
        end_on_refusal: top.choice("refusal", &["continue", "end"])? == 1,
    };
    top.choice("network", &["none"])?;
    host.closed("network")?;
    host.closed("reports")?;
    distinct(&top, "exec", document.exec.iter().map(|entry| entry.name.as_bytes()))?;
    distinct(&top, "mounts", document.mounts.iter().map(|mount| mount.target.as_bytes()))?;
    distinct(&host, "files", document.files.iter().map(|file| file.target.as_bytes()))?;
    host.close()?;
    top.close()?;
    Ok(document)
}

fn distinct<'a>(fields: &Fields, key: &str, names: impl Iterator<Item = &'a [u8]>) -> Read<()> {
    let mut sorted: Vec<&[u8]> = names.collect();
    sorted.sort_unstable();
    if sorted.is_sorted_by(|one, next| one < next) {
        return Ok(());
    }
    Err(fields.fault(key, "something twice"))
}

/// A name of 1 to 64 letters, digits and some other characters.
fn named(fields: &mut Fields, key: &str, more: &[u8]) -> Read<String> {
    let text = fields.text(key)?;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || more.contains(&byte);
    if !(1..=64).contains(&text.len()) || !text.bytes().all(known) {
        return Err(fields.fault(key, "no such name"));
    }
    Ok(text)
}

fn root(mut fields: Fields) -> Read<Root> {
    let root = if fields.choice("form", &["tar", "erofs-verity"])? == 0 {
        let bytes = fields.integer("bytes", 1, MAX_INTEGER)?;
        let text = fields.text("sha256")?;
        let sha256 = sha256::from_hex(&text).ok_or_else(|| fields.fault("sha256", "no SHA-256"))?;
        Root::Tar { bytes, sha256 }
    } else {
        let layers = fields.list("layers", MAX_LAYERS, |item| item.integer("item", 1, MAX_BLOCKS))?;
        let hash = fields.text("root_hash")?;
        let salt = match fields.text("salt")? {
            none if none.is_empty() => "-".to_owned(),
            dash if dash == "-" => return Err(fields.fault("salt", "no hexadecimal digits")),
            salt => salt,
        };
        // The same check as of the command line's.
        Root::Verity(Verity::new(&hash, &salt, layers).map_err(|why| format!("root: {why}"))?)
    };
    fields.close()?;
    Ok(root)
}

fn exec(mut fields: Fields) -> Read<Exec> {
    let entry = Exec {
        name: named(&mut fields, "name", b"._-")?,
        count: fields.integer("count", 1, MAX_INTEGER)?,
        process: process(fields.table("process")?)?,
    };
    fields.close()?;
    Ok(entry)
}

fn process(mut fields: Fields) -> Read<Process> {
    let names = fields.rising("capabilities", CAPABILITIES.len(), |item| {
        let name = item.text("item")?;
        if CAPABILITIES.contains(&name.as_str()) {
            Ok(name)
        } else {
            Err(item.fault("item", "no capability"))
        }
    })?;
    let limits = fields.list("rlimits", RLIMITS.len(), |item| limit(item.table("item")?))?;
    let names_of_limits =
        limits.iter().map(|limit| RLIMITS.get(limit.resource as usize).copied().unwrap_or(""));
    if !names_of_limits.is_sorted_by(|one, next| one < next) {
        return Err(fields.fault("rlimits", "not sorted by name, or with duplicates"));
    }
    let command = Command {
        argv: fields.list("argv", MAX_ENTRIES, |item| item.c_text("item"))?,
        environment: fields.list("environment", MAX_ENTRIES, assignment)?,
        cwd: CString::new(fields.folder("cwd")?).unwrap_or_default(),
        uid: fields.id("uid")?,
        gid: fields.id("gid")?,
        groups: fields.rising("groups", MAX_GROUPS, |item| item.id("item"))?,
        capabilities: capability_mask(&names.iter().map(String::as_str).collect::<Vec<_>>()),
        no_new_privileges: fields.flag("no_new_privileges")?,
        filtered: fields.choice("seccomp", &["none", "default"])? == 1,
        limits,
    };
    if command.argv.first().is_none_or(|program| program.is_empty()) {
        return Err(fields.fault("argv", "no program"));
    }
    fields.closed("terminal")?;
    let doors = doors(fields.table("host")?)?;
    let fixed = command.environment.iter().map(|entry| name_of(entry.as_bytes()));
    distinct(
        &fields,
        "environment",
        fixed.chain(doors.environment.iter().map(|variable| variable.name.as_bytes())),
    )?;
    fields.close()?;
    Ok(Process { command, doors })
}

/// What stands before the first `=`.
pub fn name_of(entry: &[u8]) -> &[u8] {
    entry.split(|byte| *byte == b'=').next().unwrap_or_default()
}

fn assignment(item: &mut Fields) -> Read<CString> {
    let entry = item.c_text("item")?;
    match entry.as_bytes().iter().position(|byte| *byte == b'=') {
        Some(1..) => Ok(entry),
        _ => Err(item.fault("item", "not NAME=VALUE")),
    }
}

fn limit(mut fields: Fields) -> Read<Limit> {
    let resource = u32::try_from(fields.choice("name", &RLIMITS)?).unwrap_or(u32::MAX);
    let mut bound = |key: &str| match fields.take(key)? {
        Value::Integer(number) => Ok(number),
        Value::Text(text) if text == "unlimited" => Ok(u64::MAX),
        _ => Err(fields.fault(key, "neither a number nor \"unlimited\"")),
    };
    let (soft, hard) = (bound("soft")?, bound("hard")?);
    if soft > hard {
        return Err(fields.fault("soft", "above the hard limit"));
    }
    fields.close()?;
    Ok(Limit { resource, soft, hard })
}

fn doors(mut fields: Fields) -> Read<Doors> {
    let signals = fields.rising("signals", FEW, |item| item.integer("item", 1, 64))?;
    fields.closed("resize")?;
    let doors = Doors {
        resize: false,
        stdin: fields.flag("stdin")?,
        output: fields.flag("output")?,
        signals: signals.iter().fold(0, |bits, number| bits | (1 << number)),
        environment: fields.list("environment", MAX_ENTRIES, |item| variable(item.table("item")?))?,
    };
    fields.close()?;
    Ok(doors)
}

fn variable(mut fields: Fields) -> Read<Variable> {
    let name = fields.text("name")?;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !(1..=128).contains(&name.len())
        || !name.bytes().all(known)
        || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(fields.fault("name", "no variable's name"));
    }
    let variable = Variable {
        name,
        grammar: fields.choice("allow", &GRAMMARS)?,
        bytes: usize::try_from(fields.integer("bytes", 0, MAX_VARIABLE)?).unwrap_or(0),
    };
    fields.close()?;
    Ok(variable)
}

fn mount(mut fields: Fields) -> Read<Mount> {
    fields.choice("kind", &["tmpfs"])?;
    let mode = fields.text("mode")?;
    let octal = mode.len() == 4 && mode.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    if !octal || !mode.starts_with(['0', '1']) {
        return Err(fields.fault("mode", "no mode of four octal digits"));
    }
    let mount = Mount {
        target: fields.target()?,
        bytes: fields.integer("bytes", 1, MAX_INTEGER)?,
        mode,
        executable: fields.flag("executable")?,
    };
    fields.close()?;
    Ok(mount)
}

fn supplied(mut fields: Fields) -> Read<Supplied> {
    let file = Supplied {
        target: fields.target()?,
        bytes: usize::try_from(fields.integer("bytes", 1, MAX_FILE)?).unwrap_or(0),
    };
    fields.close()?;
    Ok(file)
}
