// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! What a workload document says, checked in every value (docs/workload.md).

use crate::root::protect::Protected;
use crate::root::verity::{Verity, MAX_BLOCKS, MAX_LAYERS};
use crate::workload::fields::{Fields, Read};
use crate::workload::json::{self, MAX_INTEGER};
use crate::workload::process::{self, Process};
use crate::workload::sha256;

pub const MAX_BYTES: usize = 1 << 20;
const VERSION: u64 = 1;
pub const FEW: usize = 64;
const MAX_FILE: u64 = 1_000_000;
/// Each is a device of the guest, and a bus has few places.
pub const MAX_FOLDERS: usize = 16;
const MAX_SETTING: usize = 256;

/// How the workload gets attestation reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reports {
    None,
    /// At a socket of the agent.
    Socket,
    /// From the processor's own interface.
    Raw,
}

/// What the root is, and by what it is recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    Tar { bytes: u64, sha256: [u8; sha256::BYTES] },
    Verity(Verity),
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

/// A folder or file of the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    pub target: String,
    /// `None`: it stays with the host, and may be written to.
    pub copied: Option<u64>,
}

/// A parameter of the kernel's that a container has to itself; `name` with dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    pub name: String,
    pub value: String,
}

/// What the host may do beside what lists say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Choose the host name.
    pub names_it: bool,
    /// Ask for reports of its own.
    pub reports: bool,
    /// Start any command.
    pub exec: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    pub root: Root,
    pub process: Process,
    pub exec: Vec<Exec>,
    pub mounts: Vec<Mount>,
    pub files: Vec<Supplied>,
    pub folders: Vec<Folder>,
    pub sysctls: Vec<Sysctl>,
    /// Whether there is a network, whose addresses and routes come from the host.
    pub ethernet: bool,
    pub hostname: String,
    pub writable_bytes: u64,
    pub protected: Protected,
    pub reports: Reports,
    pub host: Host,
    pub end_on_refusal: bool,
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
        process: process::read(top.table("process")?)?,
        exec: top.list("exec", FEW, |item| exec(item.table("item")?))?,
        mounts: top.list("mounts", FEW, |item| mount(item.table("item")?))?,
        files: host.list("files", FEW, |item| supplied(item.table("item")?))?,
        folders: host.list("folders", MAX_FOLDERS, |item| folder(item.table("item")?))?,
        sysctls: top.list("sysctls", FEW, |item| sysctl(item.table("item")?))?,
        ethernet: top.choice("network", &["none", "ethernet"])? == 1,
        hostname: named(&mut top, "hostname", b".-")?,
        writable_bytes: top.integer("writable_bytes", 0, MAX_INTEGER)?,
        protected: Protected {
            root: top.flag("read_only_root")?,
            read_only: paths(&mut top, "read_only_paths")?,
            masked: paths(&mut top, "masked_paths")?,
        },
        reports: match top.choice("reports", &["none", "socket", "raw"])? {
            0 => Reports::None,
            1 => Reports::Socket,
            _ => Reports::Raw,
        },
        host: Host {
            names_it: host.flag("hostname")?,
            reports: host.flag("reports")?,
            exec: host.flag("exec")?,
        },
        end_on_refusal: top.choice("refusal", &["continue", "end"])? == 1,
    };
    if host.flag("network")? != document.ethernet {
        // Whoever carries a guest's frames says where they come from, too.
        return Err(host.fault("network", "does not fit the network"));
    }
    if document.host.reports && document.reports == Reports::Raw {
        // Whoever chooses REPORT_DATA could make a report that says that the host had asked.
        return Err(host.fault("reports", "excludes \"reports\": \"raw\""));
    }
    distinct(&top, "exec", document.exec.iter().map(|entry| entry.name.as_bytes()))?;
    distinct(&top, "mounts", document.mounts.iter().map(|mount| mount.target.as_bytes()))?;
    distinct(&host, "files", document.files.iter().map(|file| file.target.as_bytes()))?;
    distinct(&host, "folders", document.folders.iter().map(|folder| folder.target.as_bytes()))?;
    if !document.sysctls.is_sorted_by(|one, next| one.name < next.name) {
        return Err(top.fault("sysctls", "not sorted by name, or with duplicates"));
    }
    host.close()?;
    top.close()?;
    Ok(document)
}

pub fn distinct<'a>(fields: &Fields, key: &str, names: impl Iterator<Item = &'a [u8]>) -> Read<()> {
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
        process: process::read(fields.table("process")?)?,
    };
    fields.close()?;
    Ok(entry)
}

/// Spelt out, or those of an engine.
fn paths(top: &mut Fields, key: &str) -> Read<Vec<String>> {
    top.spell_out(key);
    top.rising(key, FEW, path)
}

/// A path that may be anywhere but `/`.
fn path(item: &mut Fields) -> Read<String> {
    match item.folder("item")? {
        root if root == "/" => Err(item.fault("item", "is the root")),
        path => Ok(path),
    }
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
        bytes: usize::try_from(fields.integer("bytes", 0, MAX_FILE)?).unwrap_or(0),
    };
    fields.close()?;
    Ok(file)
}

fn folder(mut fields: Fields) -> Read<Folder> {
    let (target, bytes) = (fields.target()?, fields.integer("bytes", 0, MAX_INTEGER)?);
    let copied = match (fields.flag("write")?, bytes) {
        (true, 0) => None,
        (false, 1..) => Some(bytes),
        _ => return Err(fields.fault("bytes", "does not fit write")),
    };
    fields.close()?;
    Ok(Folder { target, copied })
}

fn sysctl(mut fields: Fields) -> Read<Sysctl> {
    let (name, value) = (fields.text("name")?, fields.text("value")?);
    if !is_the_containers(&name) || name.len() > 4_096 {
        return Err(fields.fault("name", "no parameter that a container has to itself"));
    }
    if value.len() > MAX_SETTING || !value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(fields.fault("value", "not printable ASCII of at most 256 characters"));
    }
    fields.close()?;
    Ok(Sysctl { name, value })
}

/// Those of the network, of POSIX message queues and of System V IPC. No part of the name leads out of them.
fn is_the_containers(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let below = |rest: &str| rest.split('.').all(|part| !part.is_empty() && part.bytes().all(known));
    if let Some(rest) = name.strip_prefix("net.").or_else(|| name.strip_prefix("fs.mqueue.")) {
        return below(rest);
    }
    let lower = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    name.strip_prefix("kernel.").is_some_and(|rest| {
        matches!(rest, "sem" | "domainname")
            || rest.strip_prefix("shm").or_else(|| rest.strip_prefix("msg")).is_some_and(lower)
    })
}
