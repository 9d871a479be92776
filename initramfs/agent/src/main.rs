// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Guest agent of sev-artifacts: PID 1 of a confidential container guest.
//!
//! Receives one container from the host over a virtio-serial port, runs processes in it and relays their streams
//! (docs/protocol.md). Everything from the host is hostile input; what has to be relied on stands on the measured kernel
//! command line.
#![cfg_attr(not(test), no_main)]
#![cfg_attr(test, allow(dead_code))]

mod channel;
mod cmdline;
mod dialogue;
mod event_loop;
mod failure;
mod log;
mod network;
mod process;
mod reports;
mod root;
mod sys;
mod workload;

#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;

use channel::port::Port;
use channel::reply;
use cmdline::CommandLine;
use event_loop::{Agent, End};
use failure::{Code, Context, Failure};
use log::log;
use root::mounts;

/// Inode of the initial PID namespace: `PROC_PID_INIT_INO` in `include/linux/proc_ns.h`.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
const MAX_COMMAND_LINE: u64 = 64 * 1_024;

/// Entered from the C entry point in sys.rs.
fn start() -> i32 {
    if let Err(reason) = claim_guest() {
        eprintln!("agent: {reason}; it is meant to be the first process of a guest");
        return 1;
    }
    // From here on this is PID 1 of a machine: whatever happens ends with the power off.
    std::panic::set_hook(Box::new(|info| {
        log!("{info}");
        sys::power_off();
    }));
    if let Err(failure) = serve() {
        log!("{failure}");
    }
    sys::power_off();
}

/// Makes sure that this is the first process of a machine and nobody's ordinary process or container.
fn claim_guest() -> Result<(), &'static str> {
    if sys::getpid() != 1 {
        return Err("not PID 1");
    }
    if !fs::exists("/proc/self").unwrap_or(false) {
        mounts::agent_proc().map_err(|_| "PID 1 without /proc, and it cannot be mounted")?;
    }
    match fs::read_link("/proc/self/ns/pid") {
        Ok(namespace) if namespace.as_os_str() == INITIAL_PID_NAMESPACE => Ok(()),
        _ => Err("not in the initial PID namespace"),
    }
}

fn serve() -> Result<(), Failure> {
    let environment = prepare();
    // With nobody to tell, a failure of the port is the log's alone.
    let port = Port::open().context(Code::Internal, "agent port")?;
    let command_line = environment.and_then(|()| read_command_line());
    let (command_line, failure) = match command_line {
        Ok(command_line) => (command_line, None),
        Err(failure) => (CommandLine::default(), Some(failure)),
    };
    if command_line.log {
        log::enable();
    }
    let mut agent = match Agent::new(command_line, port) {
        Ok(agent) => agent,
        Err((mut port, failure)) => {
            let mut out = Vec::new();
            reply::encode_error(&mut out, 0, &failure);
            port.flush(&mut out);
            return Err(failure);
        }
    };
    let result = failure.map_or_else(|| agent.run(), Err);
    agent.kill_container();
    match result {
        Ok(End::Shutdown) => log!("shutdown"),
        Ok(End::HostGone) => log!("the host is gone"),
        Err(failure) => {
            agent.last_words(&failure);
            return Err(failure);
        }
    }
    Ok(())
}

/// Signals, mounts and descriptors that the rest relies on.
fn prepare() -> Result<(), Failure> {
    let internal = Code::Internal;
    sys::block_signals().context(internal, "signals")?;
    mounts::agent().context(internal, "agent")?;
    claim_standard_streams().context(internal, "standard streams")?;
    fs::write("/proc/self/oom_score_adj", "-1000").context(internal, "oom_score_adj")?;
    close_image().context(internal, "the agent's own file")?;
    // A kernel without networks has no loopback; nothing here needs one.
    let _ = sys::network::loopback_up();
    Ok(())
}

/// Descriptors 0 to 2 become /dev/null: the kernel may have left them closed, or on a console that the host reads.
fn claim_standard_streams() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    (0..3).try_for_each(|target| sys::dup_onto(&null, target))?;
    // When they were closed, `null` is one of them and must stay open.
    std::mem::forget(null);
    Ok(())
}

/// From here on nothing executes this program again: not a child of the container that is still this image and takes
/// a script's first line, `#!/proc/self/exe`, at its word. What runs cannot be written to; without a name it cannot be
/// replaced either.
fn close_image() -> io::Result<()> {
    let image = fs::read_link("/proc/self/exe")?;
    // Even root executes only what is executable for somebody.
    fs::set_permissions(&image, fs::Permissions::from_mode(0o0))?;
    fs::remove_file(&image)
}

fn read_command_line() -> Result<CommandLine, Failure> {
    let mut text = Vec::new();
    File::open("/proc/cmdline")
        .and_then(|file| file.take(MAX_COMMAND_LINE).read_to_end(&mut text))
        .context(Code::Internal, "/proc/cmdline")?;
    cmdline::parse(&text).map_err(|why| Failure::new(Code::BadValue, why))
}
