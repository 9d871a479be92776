// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Starting one process inside the container: fork, enter, give up privileges, exec.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::fchown;

use crate::channel::message::Size;
use crate::failure::{Code, Context, Failure};
use crate::process::command::{Command, Filter};
use crate::process::container::{self, Container};
use crate::process::filter;
use crate::sys::{self, credentials, terminal};

const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Of a terminal whose size nobody has said.
const USUAL_SIZE: Size = Size { rows: 24, columns: 80 };

/// The agent's ends of a process that was just forked.
pub struct Spawned {
    pub pid: i32,
    /// Empty at its end: exec succeeded. Otherwise a report (see container.rs).
    pub report: File,
    pub stdin: File,
    pub stdout: File,
    /// A terminal carries it with stdout.
    pub stderr: Option<File>,
    pub terminal: Option<File>,
}

/// What a child finds on its descriptors 0 to 2.
enum Streams {
    Pipes([OwnedFd; 3]),
    Terminal(OwnedFd),
}

/// Forks the process. What goes wrong inside the child comes through `report`.
pub fn spawn(request: &Command, container: &Container, size: Size) -> Result<Spawned, Failure> {
    let what = Code::Spawn;
    let (report, child_report) = sys::pipe().context(what, "pipe")?;
    let (mut spawned, streams) = if request.terminal {
        let (outer, inner) = container.terminal().context(what, "terminal")?;
        // A size of nothing would be a fault to many programs.
        let Size { rows, columns } = if size == Size::default() { USUAL_SIZE } else { size };
        terminal::resize(&outer, rows, columns).context(what, "terminal")?;
        let copy = || outer.try_clone().map(File::from).context(what, "terminal");
        let (stdin, stdout) = (copy()?, copy()?);
        let ends = Spawned {
            pid: 0,
            report: report.into(),
            stdin,
            stdout,
            stderr: None,
            terminal: Some(outer.into()),
        };
        (ends, Streams::Terminal(inner))
    } else {
        let pipe = || sys::pipe().context(what, "pipe");
        let (child_stdin, stdin) = pipe()?;
        let (stdout, child_stdout) = pipe()?;
        let (stderr, child_stderr) = pipe()?;
        for end in [&stdin, &stdout, &stderr] {
            sys::set_nonblocking(end).context(what, "pipe")?;
        }
        let (stdin, stdout, stderr) = (stdin.into(), stdout.into(), Some(stderr.into()));
        let ends = Spawned { pid: 0, report: report.into(), stdin, stdout, stderr, terminal: None };
        (ends, Streams::Pipes([child_stdin, child_stdout, child_stderr]))
    };
    let Some(pid) = sys::fork().context(what, "fork")? else {
        let failure = become_process(request, container, &streams);
        let _ =
            io::Write::write_all(&mut File::from(child_report), &container::encode_report(Some(&failure)));
        sys::exit_now(127);
    };
    spawned.pid = pid;
    Ok(spawned)
}

/// The child's side: returns only when something failed.
fn become_process(request: &Command, container: &Container, streams: &Streams) -> Failure {
    match enter(request, container, streams) {
        Ok(()) => exec_in_path(request),
        Err(failure) => failure,
    }
}

fn enter(request: &Command, container: &Container, streams: &Streams) -> Result<(), Failure> {
    let what = Code::Spawn;
    // Until exec this is the agent's image: no process of the container may trace it or reach it through /proc.
    sys::set_undumpable().context(what, "prctl")?;
    std::fs::write("/proc/self/oom_score_adj", "0").context(what, "oom_score_adj")?;
    container::join_cgroup().context(what, "cgroup")?;
    sys::setns(&container.pidfd, container::NAMESPACES).context(what, "enter the container")?;
    sys::setsid().context(what, "session")?;
    let streams = match streams {
        Streams::Pipes([stdin, stdout, stderr]) => [stdin, stdout, stderr],
        Streams::Terminal(inner) => {
            terminal::control(inner).context(what, "controlling terminal")?;
            [inner; 3]
        }
    };
    // A terminal's group is that of all terminals.
    let group = (!request.terminal).then_some(request.gid);
    for (target, stream) in (0..).zip(streams) {
        // Without this, a process that is not root could not open /dev/stdout.
        fchown(stream, Some(request.uid), group).context(what, "stream owner")?;
        sys::dup_onto(stream, target).context(what, "streams")?;
    }
    // As root: a home that only its owner may enter is a legitimate working directory for that owner.
    let cwd = std::ffi::OsStr::new(lossless(&request.cwd));
    std::env::set_current_dir(cwd).context(what, "working directory")?;
    for limit in &request.limits {
        sys::set_limit(limit.resource, limit.soft, limit.hard).context(what, "resource limits")?;
    }
    let capabilities = &request.capabilities;
    credentials::bound_capabilities(capabilities.bounding).context(what, "bounding set")?;
    if !request.no_new_privileges {
        // While this is still root: nobody else may then.
        filter(request)?;
    }
    credentials::become_user(request.uid, request.gid, &request.groups).context(what, "user and groups")?;
    credentials::set_capabilities(capabilities).context(what, "capabilities")?;
    if request.no_new_privileges {
        sys::no_new_privileges().context(what, "no new privileges")?;
    }
    sys::reset_signals().context(what, "signals")?;
    sys::set_umask(request.umask);
    if request.no_new_privileges {
        // As late as can be: the filter is the program's, and what comes before need not be in it.
        filter(request)?;
    }
    Ok(())
}

fn filter(request: &Command) -> Result<(), Failure> {
    let program = match &request.filter {
        Filter::None => return Ok(()),
        Filter::Usual => filter::program(),
        Filter::Spelt(rules) => rules.program(),
    };
    sys::filter_calls(&program).context(Code::Spawn, "filter of system calls")
}

fn lossless(text: &CStr) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(text.to_bytes())
}

/// Tries one path after the other; what counts is the kernel's own answer, as the user that will run the program.
fn exec_in_path(request: &Command) -> Failure {
    let Some(program) = request.argv.first() else {
        return Failure::new(Code::BadValue, "argv is empty");
    };
    let mut worst = io::Error::from_raw_os_error(libc::ENOENT);
    for path in candidates(program.as_bytes(), &request.environment) {
        let error = sys::exec(&path, &request.argv, &request.environment);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            Some(libc::EACCES) => worst = error,
            _ => {
                worst = error;
                break;
            }
        }
    }
    let code = match worst.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => Code::NotFound,
        Some(libc::EACCES | libc::ENOEXEC | libc::EISDIR) => Code::NotExecutable,
        _ => Code::Spawn,
    };
    let shown = program.as_bytes().get(..200).unwrap_or(program.as_bytes()).escape_ascii();
    Failure::from_io(code, shown, &worst)
}

/// The files that `program` may mean, in order. Relative entries of PATH would depend on the working directory, which
/// the image controls: skipped.
fn candidates(program: &[u8], environment: &[CString]) -> Vec<CString> {
    if program.contains(&b'/') {
        return CString::new(program).into_iter().collect();
    }
    let path =
        environment.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(|byte| *byte == b':')
        .filter(|folder| folder.starts_with(b"/"))
        .filter_map(|folder| CString::new([folder, b"/", program].concat()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(program: &str, environment: &[&str]) -> Vec<String> {
        let environment: Vec<CString> =
            environment.iter().filter_map(|entry| CString::new(*entry).ok()).collect();
        candidates(program.as_bytes(), &environment)
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn names_are_looked_up_in_path() {
        assert_eq!(shown("sh", &["HOME=/", "PATH=/a:/b/c", "PATH=/never"]), ["/a/sh", "/b/c/sh"]);
        assert_eq!(shown("sh", &["XPATH=/a"]).len(), 6);
        assert_eq!(shown("sh", &["XPATH=/a"]).first().map(String::as_str), Some("/usr/local/sbin/sh"));
    }

    #[test]
    fn relative_and_empty_entries_are_skipped() {
        assert_eq!(shown("sh", &["PATH=:.:bin::/x:"]), ["/x/sh"]);
        assert!(shown("sh", &["PATH="]).is_empty());
    }

    #[test]
    fn a_slash_means_no_lookup() {
        assert_eq!(shown("./sh", &["PATH=/a"]), ["./sh"]);
        assert_eq!(shown("/bin/sh", &[]), ["/bin/sh"]);
    }
}
