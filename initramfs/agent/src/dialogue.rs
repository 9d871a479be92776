// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! What each message of the host does, in a guest that the host commands and in one that a document commands.

use std::ffi::CString;

use crate::channel::message::{kind, Container, Message, RootKind, Run, Size, Spawn};
use crate::channel::reply;
use crate::event_loop::{Agent, Authority, End, State};
use crate::failure::{Code, Failure};
use crate::log::log;
use crate::network::apply;
use crate::process::container::{self, Request};
use crate::process::live::Process;
use crate::process::spawn;
use crate::root::protect::Protected;
use crate::root::rootfs::Source;
use crate::workload::bound::{refused, Bound};
use crate::workload::process::{self, Doors};

const MAX_PROCESSES: usize = 64;

impl Agent {
    pub fn handle(&mut self, message: Message) -> Result<Option<End>, Failure> {
        match (message, &self.state) {
            (Message::Hello { version, output_window }, State::Greeting) => {
                log!("host speaks protocol version {version}");
                self.output_window = output_window;
                self.state = State::Waiting;
            }
            (_, State::Greeting) => return Err(Failure::protocol("message before HELLO")),
            (Message::Shutdown, _) => return Ok(Some(End::Shutdown)),
            (message, State::Waiting) => self.before_the_container(message)?,
            (Message::Spawn(id, request), State::Ready(_)) => self.spawn(id, request)?,
            (Message::Run(id, request), State::Ready(_)) => self.run_entry(id, request)?,
            (Message::Attest(data), State::Ready(_)) => self.attest(&data)?,
            (message, _) => self.at_process(message)?,
        }
        Ok(None)
    }

    fn before_the_container(&mut self, message: Message) -> Result<(), Failure> {
        match (message, &mut self.authority) {
            (Message::Workload(bytes), Authority::Awaited(expected)) => {
                self.authority = Authority::Document(Box::new(Bound::accept(expected, &bytes)?));
                log!("the workload document is there");
                Ok(())
            }
            (_, Authority::Awaited(_)) => {
                Err(refused("the measured command line demands a workload document before anything else"))
            }
            (Message::Container(request), Authority::Host) => {
                let request = self.wanted(request)?;
                self.prepare(&request)
            }
            (Message::Container(_), Authority::Document(_)) => {
                self.refuse(0, kind::CONTAINER, &refused("the workload document says what the root is"))
            }
            (Message::File(number, content), Authority::Document(bound)) => {
                let result = bound.supply(number, content);
                self.refusing(0, kind::FILE, result).map(drop)
            }
            (Message::Network(network), Authority::Document(bound)) => {
                let result = bound.connect();
                match self.refusing(0, kind::NETWORK, result)? {
                    Some(()) => apply::apply(&network),
                    None => Ok(()),
                }
            }
            (Message::Prepare(hostname), Authority::Document(bound)) => {
                let result = bound.container(hostname);
                match self.refusing(0, kind::PREPARE, result)? {
                    Some(request) => {
                        if let Authority::Document(bound) = &self.authority {
                            self.reporter = bound.reporter()?;
                        }
                        self.prepare(&request)
                    }
                    None => Ok(()),
                }
            }
            _ => Err(Failure::protocol("message not allowed in this state")),
        }
    }

    /// The container that the host of an unbound guest asks for.
    fn wanted(&self, request: Container) -> Result<Request, Failure> {
        let verity = self.command_line.verity.clone();
        let bytes = request.image_bytes;
        let root = match request.root {
            RootKind::Tar if verity.is_some() => {
                let why = "the measured command line demands EROFS behind dm-verity";
                return Err(Failure::new(Code::Rootfs, why));
            }
            RootKind::Tar => Source::Tar { bytes, sha256: None },
            RootKind::Erofs => Source::Erofs { bytes, verity },
        };
        Ok(Request {
            root,
            writable_bytes: request.writable_bytes,
            hostname: request.hostname,
            mounts: Vec::new(),
            files: Vec::new(),
            reports: true,
            protected: Protected::default(),
            folders: Vec::new(),
            cwd: CString::default(),
            sysctls: Vec::new(),
            ethernet: false,
        })
    }

    fn prepare(&mut self, request: &Request) -> Result<(), Failure> {
        let (container, report) = container::start(request)?;
        self.state = State::Preparing(container, report.into(), request.root.is_behind_verity());
        Ok(())
    }

    fn spawn(&mut self, id: u32, request: Result<Spawn, Failure>) -> Result<(), Failure> {
        self.take_id(id)?;
        let allowed = match &self.authority {
            Authority::Document(bound) => bound.opens_commands(),
            _ => Ok(()),
        };
        if self.refusing(id, kind::SPAWN, allowed)?.is_none() {
            return Ok(());
        }
        let started = request.and_then(|Spawn { stdin_at_end, size, command }| {
            let process = match &self.authority {
                Authority::Document(bound) => bound.command(command),
                _ => process::Process { command, doors: Doors::all() },
            };
            self.start(id, process, stdin_at_end, size)
        });
        self.started(id, started);
        Ok(())
    }

    fn run_entry(&mut self, id: u32, request: Result<Run, Failure>) -> Result<(), Failure> {
        self.take_id(id)?;
        let Authority::Document(bound) = &mut self.authority else {
            return Err(Failure::protocol("RUN in an unbound guest"));
        };
        let started = match request {
            Err(failure) => Err(failure),
            Ok(request) => {
                let allowed = bound.run(&request);
                let Some(process) = self.refusing(id, kind::RUN, allowed)? else { return Ok(()) };
                self.start(id, process, request.stdin_at_end, request.size)
            }
        };
        self.started(id, started);
        Ok(())
    }

    /// A report for the host, where the document lets it ask.
    fn attest(&mut self, data: &[u8]) -> Result<(), Failure> {
        let why = match &self.authority {
            Authority::Document(bound) if bound.host_may_attest() => {
                return self.reporter.as_mut().map_or(Ok(()), |reporter| reporter.ask(data));
            }
            Authority::Document(_) => "the workload document does not let the host ask for reports",
            _ => "no workload document lets the host of an unbound guest ask for reports",
        };
        self.refuse(0, kind::ATTEST, &refused(why))
    }

    fn take_id(&mut self, id: u32) -> Result<(), Failure> {
        if id <= self.last_id {
            return Err(Failure::protocol(format!("process id {id} is not greater than the ones before it")));
        }
        self.last_id = id;
        Ok(())
    }

    fn start(
        &self,
        id: u32,
        process: process::Process,
        stdin_at_end: bool,
        size: Size,
    ) -> Result<Process, Failure> {
        if self.processes.len() >= MAX_PROCESSES {
            return Err(Failure::new(Code::Spawn, format!("{MAX_PROCESSES} processes are live already")));
        }
        let State::Ready(container) = &self.state else {
            return Err(Failure::new(Code::Internal, "no container"));
        };
        let spawned = spawn::spawn(&process.command, container, size)?;
        Ok(Process::new(id, spawned, process.doors, stdin_at_end, self.output_window))
    }

    fn started(&mut self, id: u32, result: Result<Process, Failure>) {
        match result {
            Ok(process) => drop(self.processes.insert(id, process)),
            Err(failure) => reply::encode_error(&mut self.out, id, &failure),
        }
    }

    /// Messages to a process, through the doors that it has.
    fn at_process(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Stdin(id, bytes) => {
                self.with(id, kind::STDIN, |doors| doors.stdin, |process| process.stdin(&bytes))
            }
            Message::StdinEof(id) => self.with(id, kind::STDIN_EOF, |doors| doors.stdin, Process::stdin_eof),
            Message::Window(id, stream, bytes) => {
                self.with(id, kind::WINDOW, |_| true, |process| process.grant(stream, bytes))
            }
            Message::Signal(id, number) => {
                let send = |process: &mut Process| {
                    process.signal(number);
                    Ok(())
                };
                self.with(id, kind::SIGNAL, |doors| doors.takes_signal(number), send)
            }
            Message::Resize(id, size) => {
                let resize = |process: &mut Process| {
                    process.resize(size);
                    Ok(())
                };
                self.with(id, kind::RESIZE, |doors| doors.resize, resize)
            }
            _ => Err(Failure::protocol("message not allowed in this state")),
        }
    }

    /// Runs `action` on a live process if it is open to that. For one that is over, messages still under way are dropped.
    fn with(
        &mut self,
        id: u32,
        kind: u8,
        open: impl FnOnce(&Doors) -> bool,
        action: impl FnOnce(&mut Process) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self.processes.get_mut(&id) {
            Some(process) if open(&process.doors) => action(process),
            Some(_) => {
                self.refuse(id, kind, &refused("the workload document does not open this to the host"))
            }
            None if id <= self.last_id => Ok(()),
            None => Err(Failure::protocol(format!("message for process {id}, which was never spawned"))),
        }
    }

    /// What was allowed; a refusal is told to the host and gives `None`, unless it ends the guest.
    fn refusing<T>(&mut self, id: u32, kind: u8, result: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(failure) if failure.code == Code::Refused => self.refuse(id, kind, &failure).map(|()| None),
            Err(failure) => Err(failure),
        }
    }

    fn refuse(&mut self, id: u32, kind: u8, failure: &Failure) -> Result<(), Failure> {
        log!("refused message 0x{kind:02x}: {}", failure.message);
        if matches!(&self.authority, Authority::Document(bound) if bound.ends_on_refusal()) {
            return Err(failure.clone());
        }
        match kind {
            kind::SPAWN | kind::RUN => reply::encode_error(&mut self.out, id, failure),
            _ => reply::encode_refused(&mut self.out, id, kind, &failure.message),
        }
        Ok(())
    }
}
