// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The loop of the process that asks for reports. It may wait for the processor, whose way leads through the host; the
//! agent never does.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use crate::reports::client::{self, Client};
use crate::reports::domain::{Domain, MAX_DATA};
use crate::reports::tsm::{self, Evidence, Interface};
use crate::sys;

/// More wait in the socket's own queue, which the kernel bounds.
pub const MAX_CLIENTS: usize = 16;

/// Serves the agent at `control` and whoever connects to `listener`, until the agent is gone.
///
/// A round answers at most one question of the host and one of the workload: neither waits for all of the other's.
pub fn serve(
    control: &mut UnixStream,
    listener: Option<&UnixListener>,
    interface: &impl Interface,
) -> io::Result<()> {
    let mut clients: Vec<Client> = Vec::new();
    loop {
        let mut fds = vec![entry(control, libc::POLLIN)];
        let room = clients.len() < MAX_CLIENTS;
        fds.extend(clients.iter().map(|client| sys::PollFd {
            fd: client.fd(),
            events: client.events(),
            revents: 0,
        }));
        fds.extend(listener.filter(|_| room).map(|listener| entry(listener, libc::POLLIN)));
        sys::poll(&mut fds, timeout(&clients))?;

        let mut happened = fds.iter().map(|entry| entry.revents != 0);
        if happened.next() == Some(true) && !host(control, interface)? {
            return Ok(());
        }
        let now = Instant::now();
        let before = clients.len();
        clients.retain_mut(|client| {
            let alive = happened.next() != Some(true) || client.go_on();
            alive && client.deadline().is_none_or(|deadline| now < deadline)
        });
        if happened.next() == Some(true) && before < MAX_CLIENTS {
            let accepted = listener.and_then(|listener| listener.accept().ok());
            clients.extend(accepted.and_then(|(stream, _)| Client::new(stream).ok()));
        }
        // In the order in which they came.
        if let Some(client) = clients.iter_mut().find(|client| client.question().is_some()) {
            let data = client.question().unwrap_or_default().to_vec();
            let report_data = Domain::Workload.report_data(&data);
            client.answer(match tsm::ask(interface, &report_data) {
                Ok(evidence) => client::success(&report_data, &evidence),
                Err(why) => client::error(&why),
            });
        }
    }
}

fn entry(file: &impl AsRawFd, events: i16) -> sys::PollFd {
    sys::PollFd { fd: file.as_raw_fd(), events, revents: 0 }
}

/// Milliseconds until something has to be done without an event.
fn timeout(clients: &[Client]) -> i32 {
    if clients.iter().any(|client| client.question().is_some()) {
        return 0;
    }
    let now = Instant::now();
    let next = clients.iter().filter_map(Client::deadline).min();
    next.map_or(-1, |deadline| {
        i32::try_from(deadline.saturating_duration_since(now).as_millis() + 1).unwrap_or(i32::MAX)
    })
}

/// Answers the agent, which asks for the host; false when the agent is gone.
fn host(control: &mut UnixStream, interface: &impl Interface) -> io::Result<bool> {
    let mut length = [0];
    if control.read(&mut length)? == 0 {
        return Ok(false);
    }
    let mut data = vec![0; usize::from(length[0]).min(MAX_DATA)];
    control.read_exact(&mut data)?;
    let answer = payload(&tsm::ask(interface, &Domain::Host.report_data(&data)));
    control.write_all(&u32::try_from(answer.len()).unwrap_or(0).to_le_bytes())?;
    control.write_all(&answer)?;
    Ok(true)
}

/// The payload of REPORT (docs/protocol.md).
pub fn payload(result: &Result<Evidence, String>) -> Vec<u8> {
    let (failed, text, blobs): (u8, &[u8], [&[u8]; 2]) = match result {
        Ok(Evidence { provider, report, auxblob }) => (0, provider.as_bytes(), [report, auxblob]),
        Err(why) => (1, why.as_bytes().get(..1_024).unwrap_or(why.as_bytes()), [&[], &[]]),
    };
    let mut payload = vec![failed, 0, 0, 0];
    for bytes in [text, blobs[0], blobs[1]] {
        payload.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes());
        payload.extend_from_slice(bytes);
    }
    payload
}
