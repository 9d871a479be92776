// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The kernel's interface for reports, `tsm/report` in configfs (Documentation/ABI/testing/configfs-tsm).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use crate::reports::sha512;

const FOLDER: &str = "/sys/kernel/config/tsm/report";
/// The folder of a request.
const NAME: &str = "agent";
/// Together with what goes around them they fit into one message to the host. An SNP report has 1,184 bytes, the
/// certificates that come with it at most 16 KiB (`SEV_FW_BLOB_MAX_SIZE`, include/uapi/linux/sev-guest.h).
const MAX_REPORT: usize = 16 * 1_024;
const MAX_AUXBLOB: usize = 32 * 1_024;
const MAX_WORD: usize = 64;
const ATTEMPTS: usize = 3;

/// What a request's folder in configfs can do; the tests have one of ordinary files.
pub trait Interface {
    fn make(&self, name: &str) -> io::Result<()>;
    /// At most `most` bytes; more are an error.
    fn read(&self, name: &str, attribute: &str, most: usize) -> io::Result<Vec<u8>>;
    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
}

pub struct Configfs {
    folder: PathBuf,
}

impl Default for Configfs {
    fn default() -> Self {
        Self { folder: FOLDER.into() }
    }
}

impl Configfs {
    #[cfg(test)]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }
}

impl Interface for Configfs {
    fn make(&self, name: &str) -> io::Result<()> {
        fs::create_dir(self.folder.join(name))
    }

    fn read(&self, name: &str, attribute: &str, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.folder.join(name).join(attribute))?;
        file.take(most as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > most {
            return Err(io::Error::other(format!("more than {most} bytes")));
        }
        Ok(bytes)
    }

    /// In one piece: configfs takes it as a whole when the file is closed.
    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        File::options().write(true).open(self.folder.join(name).join(attribute))?.write_all(bytes)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_dir(self.folder.join(name))
    }
}

/// A report, and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The kernel's name for what made the report: `sev_guest`.
    pub provider: String,
    pub report: Vec<u8>,
    /// SNP: certificates, if the host gave the guest any.
    pub auxblob: Vec<u8>,
}

/// Has the processor sign this `REPORT_DATA`. The error is a line for whoever asked.
pub fn ask(interface: &impl Interface, report_data: &[u8; sha512::BYTES]) -> Result<Evidence, String> {
    make(interface)?;
    let result = (0..ATTEMPTS).find_map(|_| attempt(interface, report_data).transpose());
    let _ = interface.remove(NAME);
    result.unwrap_or_else(|| Err(format!("something else used the report interface, {ATTEMPTS} times")))
}

fn make(interface: &impl Interface) -> Result<(), String> {
    let made = interface.make(NAME).or_else(|error| match error.kind() {
        // Nobody else is here: left by a removal that failed.
        io::ErrorKind::AlreadyExists => interface.remove(NAME).and_then(|()| interface.make(NAME)),
        _ => Err(error),
    });
    made.map_err(|error| match error.raw_os_error() {
        Some(libc::ENXIO) => format!("no SEV-SNP processor is behind this guest's report interface: {error}"),
        Some(libc::ENOENT) => format!("this guest's kernel has no report interface: {error}"),
        _ => format!("report interface: {error}"),
    })
}

/// `None`: it was somebody else's report, or could be.
fn attempt(
    interface: &impl Interface,
    report_data: &[u8; sha512::BYTES],
) -> Result<Option<Evidence>, String> {
    let at = |attribute: &'static str| move |error| format!("report interface, {attribute}: {error}");
    let before = generation(interface)?;
    interface.write(NAME, "inblob", report_data).map_err(at("inblob"))?;
    let report = interface.read(NAME, "outblob", MAX_REPORT).map_err(at("outblob"))?;
    let auxblob = match interface.read(NAME, "auxblob", MAX_AUXBLOB) {
        // Not every provider has one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        other => other.map_err(at("auxblob"))?,
    };
    let provider = interface.read(NAME, "provider", MAX_WORD).map_err(at("provider"))?;
    // The number counts what is written. A write that the kernel refused when the file was closed does not count,
    // and nobody is told of it otherwise.
    if generation(interface)? != before.wrapping_add(1) {
        return Ok(None);
    }
    if report.is_empty() {
        return Err("report interface: an empty report".to_owned());
    }
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let provider = provider.into_iter().filter(known).map(char::from).collect();
    Ok(Some(Evidence { provider, report, auxblob }))
}

fn generation(interface: &impl Interface) -> Result<u64, String> {
    let text = interface
        .read(NAME, "generation", MAX_WORD)
        .map_err(|error| format!("report interface, generation: {error}"))?;
    let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| "report interface, generation: no number".to_owned())
}
