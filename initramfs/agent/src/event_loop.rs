// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The agent proper: one thread, one poll, and the state of the connection.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use crate::channel::frame::{self, Decoder};
use crate::channel::message::{self, kind};
use crate::channel::port::{Port, Received};
use crate::channel::reply::{self, Exit};
use crate::cmdline::{Binding, CommandLine};
use crate::failure::{Code, Context, Failure};
use crate::log::log;
use crate::process::container::{self, Container};
use crate::process::live::{Process, Progress, Source, STDIN_WINDOW};
use crate::reports::reporter::Reporter;
use crate::sys;
use crate::workload::bound::Bound;

const HANDSHAKE_WAIT: Duration = Duration::from_secs(120);
/// While the host takes nothing: with this much unsent, no more output is read from the container …
const OUTPUT_LIMIT: usize = 256 * 1_024;
/// … and with this much, no more messages from the host, whose answers would pile up.
const INPUT_LIMIT: usize = 1 << 20;
/// Pause while nobody is on the other end of the port, which then always polls as hung up.
const HANG_UP_PAUSE: Duration = Duration::from_millis(5);

/// Where the connection is (docs/protocol.md, "States").
pub enum State {
    Greeting,
    Waiting,
    /// And whether the root is behind dm-verity.
    Preparing(Container, File, bool),
    Ready(Container),
}

/// Who decides what runs.
pub enum Authority {
    Host,
    /// A document whose digest is known.
    Awaited([u8; 32]),
    Document(Box<Bound>),
}

/// Why the loop ended without a failure.
pub enum End {
    Shutdown,
    HostGone,
}

#[derive(Clone, Copy)]
enum Watched {
    Port,
    Children,
    Root,
    Reporter,
    Process(u32, Source),
}

pub struct Agent {
    pub command_line: CommandLine,
    port: Port,
    pub out: Vec<u8>,
    decoder: Decoder,
    pub state: State,
    pub authority: Authority,
    children: File,
    pub reporter: Option<Reporter>,
    pub processes: BTreeMap<u32, Process>,
    pub last_id: u32,
    pub output_window: u32,
    started: Instant,
}

impl Agent {
    pub fn new(command_line: CommandLine, port: Port) -> Result<Self, (Port, Failure)> {
        let children = match sys::child_signal_fd().context(Code::Internal, "signalfd") {
            Ok(file) => file,
            Err(failure) => return Err((port, failure)),
        };
        let mut out = Vec::new();
        let authority = match command_line.binding {
            Some(Binding::Workload(digest)) => Authority::Awaited(digest),
            Some(Binding::Unbound) => Authority::Host,
            // The command line was refused: this agent serves nobody (main.rs), and nothing has this digest.
            None => Authority::Awaited([0; 32]),
        };
        let bound = matches!(authority, Authority::Awaited(_));
        reply::encode_hello(&mut out, STDIN_WINDOW, command_line.debug, bound);
        Ok(Self {
            command_line,
            port,
            out,
            decoder: Decoder::default(),
            state: State::Greeting,
            authority,
            children,
            reporter: None,
            processes: BTreeMap::new(),
            last_id: 0,
            output_window: 0,
            started: Instant::now(),
        })
    }

    /// Serves the host until it asks for the end, disappears, or something fails.
    pub fn run(&mut self) -> Result<End, Failure> {
        loop {
            let (mut fds, watched) = self.watch_list();
            sys::poll(&mut fds, self.timeout()).context(Code::Internal, "poll")?;
            for (entry, what) in fds.iter().zip(watched) {
                if entry.revents == 0 {
                    continue;
                }
                match what {
                    Watched::Children => self.drain_signals(),
                    Watched::Root => self.root_report()?,
                    Watched::Reporter => self.report()?,
                    Watched::Process(id, source) => self.process_event(id, source),
                    Watched::Port => {
                        if let Some(end) = self.port_event(entry.revents)? {
                            return Ok(end);
                        }
                    }
                }
            }
            self.reap()?;
            self.finish();
            self.port.send(&mut self.out).context(Code::Internal, "port")?;
            if matches!(self.state, State::Greeting) && self.started.elapsed() > HANDSHAKE_WAIT {
                return Err(Failure::protocol("no HELLO from the host"));
            }
        }
    }

    fn watch_list(&self) -> (Vec<sys::PollFd>, Vec<Watched>) {
        let mut fds = Vec::new();
        let mut watched = Vec::new();
        let mut watch = |fd, events, what| {
            fds.push(sys::PollFd { fd, events, revents: 0 });
            watched.push(what);
        };
        watch(self.children.as_raw_fd(), libc::POLLIN, Watched::Children);
        let readable = if self.out.len() < INPUT_LIMIT { libc::POLLIN } else { 0 };
        let writable = if self.out.is_empty() { 0 } else { libc::POLLOUT };
        watch(self.port.fd(), readable | writable, Watched::Port);
        if let State::Preparing(_, report, _) = &self.state {
            watch(report.as_raw_fd(), libc::POLLIN, Watched::Root);
        }
        // An answer is one message, and there is one at a time: no more comes while the host takes nothing.
        for reporter in self.reporter.iter().filter(|_| self.out.len() < OUTPUT_LIMIT) {
            watch(reporter.fd(), libc::POLLIN, Watched::Reporter);
        }
        for process in self.processes.values() {
            for (source, fd, events) in process.sources(self.out.len() < OUTPUT_LIMIT) {
                watch(fd, events, Watched::Process(process.id, source));
            }
        }
        (fds, watched)
    }

    /// Milliseconds until something has to be done without an event.
    fn timeout(&self) -> i32 {
        let now = Instant::now();
        let handshake = matches!(self.state, State::Greeting).then_some(self.started + HANDSHAKE_WAIT);
        let processes = self.processes.values().filter_map(Process::deadline);
        let next = processes.chain(handshake).filter(|deadline| *deadline > now).min();
        // One more than the truncated value, so that the deadline has passed afterwards.
        next.map_or(-1, |deadline| i32::try_from((deadline - now).as_millis() + 1).unwrap_or(i32::MAX))
    }

    fn drain_signals(&mut self) {
        let mut records = [0; 1_024];
        while self.children.read(&mut records).is_ok_and(|count| count > 0) {}
    }

    /// Takes the status of every ended child.
    fn reap(&mut self) -> Result<(), Failure> {
        while let Some((pid, status)) = sys::wait_any(false) {
            match &self.state {
                State::Preparing(container, ..) if container.reaper == pid => self.root_report()?,
                State::Ready(container) if container.reaper == pid => {
                    return Err(Failure::new(Code::Internal, "the container's reaper ended"));
                }
                _ => {}
            }
            if self.reporter.as_ref().is_some_and(|reporter| reporter.pid == pid) {
                return Err(Failure::new(Code::Internal, "the process that asks for reports ended"));
            }
            // Not one that has ended and waits for the host: its number may be another's by now.
            if let Some(process) = self.processes.values_mut().find(|process| process.is(pid)) {
                process.reaped(Exit::from_wait_status(status));
            }
        }
        Ok(())
    }

    /// Ends the processes that have nothing more to say.
    fn finish(&mut self) {
        let now = Instant::now();
        let out = &mut self.out;
        self.processes.retain(|_, process| matches!(process.finish(now, out), Progress::Running));
    }

    fn process_event(&mut self, id: u32, source: Source) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        if matches!(process.event(source, &mut self.out), Progress::Finished) {
            self.processes.remove(&id);
        }
    }

    /// The reaper has built the root, or could not.
    fn root_report(&mut self) -> Result<(), Failure> {
        let State::Preparing(mut container, mut report, verity) =
            std::mem::replace(&mut self.state, State::Greeting)
        else {
            return Err(Failure::new(Code::Internal, "unexpected root report"));
        };
        match container::read_report(&mut report).context(Code::Internal, "root report")? {
            Some(Ok(())) => {
                if let Some(reporter) = &mut self.reporter {
                    reporter.open(container.reaper)?;
                }
                container.root_is_ready()?;
                log!("container root is ready");
                reply::encode_ready(&mut self.out, verity);
                self.state = State::Ready(container);
                Ok(())
            }
            Some(Err(failure)) => Err(failure),
            None => Err(Failure::new(Code::Rootfs, "the process that builds the root died")),
        }
    }

    /// A report for the host, or why there is none.
    fn report(&mut self) -> Result<(), Failure> {
        if let Some(reporter) = &mut self.reporter {
            frame::encode(&mut self.out, kind::REPORT, 0, &reporter.answer()?);
        }
        Ok(())
    }

    fn port_event(&mut self, events: i16) -> Result<Option<End>, Failure> {
        if events & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) == 0 {
            return Ok(None);
        }
        match self.port.receive().context(Code::Internal, "port")? {
            Received::Bytes(bytes) => self.decoder.push(&bytes),
            Received::Nothing => {
                if events & libc::POLLHUP != 0 {
                    thread::sleep(HANG_UP_PAUSE);
                }
                return Ok(None);
            }
            Received::Closed => return Ok(Some(End::HostGone)),
        }
        while let Some(frame) = self.decoder.next()? {
            if let Some(end) = self.handle(message::decode(frame)?)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    /// Tells the host why this is the end, if it is still there to hear it.
    pub fn last_words(&mut self, failure: &Failure) {
        reply::encode_error(&mut self.out, 0, failure);
        self.flush();
    }

    pub fn flush(&mut self) {
        self.port.flush(&mut self.out);
    }

    /// Kills every process of the container: the kernel does it when the first of its PID namespace ends.
    pub fn kill_container(&self) {
        if let State::Preparing(container, ..) | State::Ready(container) = &self.state {
            let _ = sys::kill(container.reaper, libc::SIGKILL);
        }
    }
}
