// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Parameters of the kernel that a container has to itself.

use std::fs;
use std::io;

use crate::failure::{Code, Failure};
use crate::workload::document::Sysctl;

/// Sets them, in the container's namespaces and before its own /proc/sys, which is read-only, takes the agent's place.
/// In a guest without a network a parameter of networks that is not there has nothing to act on.
pub fn set(sysctls: &[Sysctl], ethernet: bool) -> Result<(), Failure> {
    for Sysctl { name, value } in sysctls {
        let spare = !ethernet && name.starts_with("net.");
        match fs::write(path(name), value) {
            Err(error) if spare && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::from_io(Code::BadValue, format_args!("sysctl {name}"), &error))
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

/// The name was checked by the document's reader: no part of it is empty or has anything but letters, digits, _ and -.
fn path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}
