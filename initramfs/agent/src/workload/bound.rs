// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! A guest whose workload document is there: what the host asks for, beside what the document opens.

use std::collections::BTreeMap;

use crate::channel::message::{Run, Size};
use crate::failure::{Code, Failure};
use crate::process::command::{Capabilities, Command};
use crate::process::container::Request;
use crate::reports::reporter::Reporter;
use crate::root::rootfs::Source;
use crate::workload::document::{self, Document, Reports, Root};
use crate::workload::process::{self, Doors, Process};
use crate::workload::sha256;

pub struct Bound {
    document: Document,
    /// How often each process may still be started: the workload, then the entries of `exec`.
    left: Vec<u64>,
    /// By their numbers in the document.
    files: BTreeMap<u32, Vec<u8>>,
    /// Whether the host has said what the network is.
    networked: bool,
}

/// What the document does not open; the event loop decides what follows.
pub fn refused(why: impl Into<String>) -> Failure {
    Failure::new(Code::Refused, why)
}

impl Bound {
    /// Takes the document with the expected digest. Nothing in other bytes is looked at.
    pub fn accept(expected: &[u8; sha256::BYTES], bytes: &[u8]) -> Result<Self, Failure> {
        let found = sha256::digest(bytes);
        if found != *expected {
            let (found, expected) = (sha256::to_hex(&found), sha256::to_hex(expected));
            return Err(refused(format!(
                "the workload document's SHA-256 is {found}, the measured command line says {expected}"
            )));
        }
        let document = document::parse(bytes)
            .map_err(|why| Failure::new(Code::BadValue, format!("workload document: {why}")))?;
        let left = [1].into_iter().chain(document.exec.iter().map(|entry| entry.count)).collect();
        Ok(Self { document, left, files: BTreeMap::new(), networked: false })
    }

    pub fn ends_on_refusal(&self) -> bool {
        self.document.end_on_refusal
    }

    pub fn host_may_attest(&self) -> bool {
        self.document.host.reports
    }

    /// The process that asks for reports, where the document has any.
    pub fn reporter(&self) -> Result<Option<Reporter>, Failure> {
        Reporter::of(&self.document)
    }

    /// A file from the host.
    pub fn supply(&mut self, number: u32, content: Vec<u8>) -> Result<(), Failure> {
        let file = usize::try_from(number).ok().and_then(|number| self.document.files.get(number));
        let file = file.ok_or_else(|| refused(format!("the workload document has no file {number}")))?;
        if content.len() > file.bytes {
            let (target, bytes) = (&file.target, file.bytes);
            return Err(refused(format!("{target} may have {bytes} bytes, says the workload document")));
        }
        if self.files.contains_key(&number) {
            return Err(refused(format!("{} was supplied before", file.target)));
        }
        self.files.insert(number, content);
        Ok(())
    }

    /// The host says, once, what the network is; whether it may.
    pub fn connect(&mut self) -> Result<(), Failure> {
        if !self.document.ethernet {
            return Err(refused("the workload document has no network"));
        }
        if std::mem::replace(&mut self.networked, true) {
            return Err(refused("the host has said before what the network is"));
        }
        Ok(())
    }

    /// The container of the document, with the host's name if it may give one. Takes the files with it.
    pub fn container(&mut self, hostname: Vec<u8>) -> Result<Request, Failure> {
        let document = &self.document;
        if !hostname.is_empty() && !document.host.names_it {
            return Err(refused("the workload document does not let the host choose the host name"));
        }
        if document.ethernet && !self.networked {
            let why = "the workload document has a network, and the host has not said which addresses it has";
            return Err(Failure::new(Code::BadValue, why));
        }
        let root = match &document.root {
            Root::Tar { bytes, sha256 } => Source::Tar { bytes: *bytes, sha256: Some(*sha256) },
            Root::Verity(verity) => Source::Erofs { bytes: 0, verity: Some(verity.clone()) },
        };
        let mut supplied = std::mem::take(&mut self.files);
        let targets = (0..).zip(&document.files);
        Ok(Request {
            root,
            writable_bytes: document.writable_bytes,
            hostname: if hostname.is_empty() { document.hostname.clone().into_bytes() } else { hostname },
            mounts: document.mounts.clone(),
            files: targets
                .filter_map(|(number, file)| Some((file.target.clone(), supplied.remove(&number)?)))
                .collect(),
            reports: document.reports == Reports::Raw,
            protected: document.protected.clone(),
            folders: document.folders.clone(),
            cwd: document.process.command.cwd.clone(),
            sysctls: document.sysctls.clone(),
            ethernet: document.ethernet,
        })
    }

    /// Whether the host may start processes of its choice.
    pub fn opens_commands(&self) -> Result<(), Failure> {
        if self.document.host.exec {
            return Ok(());
        }
        Err(refused("the workload document says what runs: no process of the host's choice"))
    }

    /// A process of the host's choice, under all that holds for the workload.
    pub fn command(&self, wanted: Command) -> Process {
        let workload = &self.document.process.command;
        let command = Command {
            capabilities: Capabilities::of(workload.capabilities.bounding, wanted.uid),
            no_new_privileges: workload.no_new_privileges,
            filter: workload.filter.clone(),
            limits: workload.limits.clone(),
            umask: workload.umask,
            ..wanted
        };
        Process { command, doors: Doors::all() }
    }

    /// The process that the host may start, once less from now on: also when it then cannot be started.
    pub fn run(&mut self, request: &Run) -> Result<Process, Failure> {
        let number = usize::try_from(request.entry).unwrap_or(usize::MAX);
        let process = match number.checked_sub(1) {
            None => Some(&self.document.process),
            Some(number) => self.document.exec.get(number).map(|entry| &entry.process),
        };
        let (Some(process), Some(left)) = (process, self.left.get_mut(number)) else {
            return Err(refused(format!("the workload document has no exec entry {number}")));
        };
        if *left == 0 {
            return Err(refused(match number {
                0 => "the workload was started before, and the workload document allows that once".to_owned(),
                _ => format!("exec entry {number} was started as often as the workload document allows"),
            }));
        }
        let mut process = process.clone();
        let mut given: Vec<&[u8]> = Vec::new();
        for entry in &request.environment {
            let name = process::name_of(entry.as_bytes());
            let value = entry.as_bytes().get(name.len() + 1..).unwrap_or_default();
            let shown = name.get(..100).unwrap_or(name).escape_ascii();
            let variable = process.doors.environment.iter().find(|variable| variable.name.as_bytes() == name);
            let variable = variable
                .ok_or_else(|| refused(format!("the workload document does not let the host set {shown}")))?;
            if !variable.takes(value) {
                return Err(refused(format!(
                    "{shown} has a value that the workload document does not allow"
                )));
            }
            if given.contains(&name) {
                return Err(refused(format!("{shown} is set twice")));
            }
            given.push(name);
        }
        if request.size != Size::default() && !process.doors.resize {
            return Err(refused("the workload document does not let the host choose the terminal's size"));
        }
        process.command.environment.extend(request.environment.iter().cloned());
        *left -= 1;
        Ok(process)
    }
}
