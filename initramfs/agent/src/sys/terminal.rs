// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! System calls for terminals.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::check;

/// Opens a new terminal of the devpts that `folder` is: (the end that plays the user, the process's end). No path is
/// looked up for the second one. Neither becomes anybody's controlling terminal; both are close-on-exec.
pub fn open(folder: &OwnedFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    let unlocked: libc::c_int = 0;
    // SAFETY: the name is a constant; both descriptors are new; TIOCSPTLCK reads one int, TIOCGPTPEER takes flags.
    unsafe {
        let fd = check(libc::openat(folder.as_raw_fd(), c"ptmx".as_ptr(), flags | libc::O_NONBLOCK))?;
        let outer = OwnedFd::from_raw_fd(fd);
        check(libc::ioctl(fd, libc::TIOCSPTLCK, &raw const unlocked))?;
        let inner = check(libc::ioctl(fd, libc::TIOCGPTPEER, flags))?;
        Ok((outer, OwnedFd::from_raw_fd(inner)))
    }
}

pub fn resize(terminal: &impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// Makes it the controlling terminal of the calling process, which leads its session.
pub fn control(terminal: &impl AsFd) -> io::Result<()> {
    // SAFETY: the argument is an integer.
    check(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

/// Rows and columns.
#[cfg(test)]
pub fn size(terminal: &impl AsFd) -> io::Result<(u16, u16)> {
    // SAFETY: TIOCGWINSZ fills one winsize.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        check(libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size))?;
        Ok((size.ws_row, size.ws_col))
    }
}
