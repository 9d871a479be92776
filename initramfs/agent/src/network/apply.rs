// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! From what NETWORK says to interfaces that are up.

use std::fs;
use std::io;

use crate::failure::{Code, Context, Failure};
use crate::log::log;
use crate::network::netlink::Kernel;
use crate::network::request::{Interface, Network};

const DEVICES: &str = "/sys/class/net";
/// More than there can be of the host's.
const MAX_DEVICES: usize = 64;
/// What an interface is called while two change their names.
const BETWEEN: &str = "agent";

/// Makes the network as it is described. Once, before anything of the container's runs.
pub fn apply(network: &Network) -> Result<(), Failure> {
    let mut kernel = Kernel::open().context(Code::Internal, "network")?;
    let devices = devices().context(Code::Internal, DEVICES)?;
    let indices = network.interfaces.iter().map(|one| find(&devices, one)).collect::<Result<Vec<_>, _>>()?;
    // Each may have another's name.
    for (number, index) in indices.iter().enumerate() {
        kernel.rename(*index, &format!("{BETWEEN}{number}")).context(Code::BadValue, "network interface")?;
    }
    for (interface, index) in network.interfaces.iter().zip(&indices) {
        set_up(&mut kernel, interface, *index)?;
    }
    for route in &network.routes {
        // A number that is none was refused with the message.
        let index = indices.get(route.interface).copied().unwrap_or(0);
        let (address, prefix) = (route.destination.address, route.destination.prefix);
        kernel.route(index, route).context(Code::BadValue, format!("route to {address}/{prefix}"))?;
    }
    log!("the network has {} interfaces", indices.len());
    Ok(())
}

/// MAC and number of every network device.
fn devices() -> io::Result<Vec<(String, u32)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(DEVICES)?.take(MAX_DEVICES) {
        let folder = entry?.path();
        let address = fs::read_to_string(folder.join("address"))?;
        let index = fs::read_to_string(folder.join("ifindex"))?;
        found.push((address.trim_end().to_owned(), index.trim_end().parse().unwrap_or(0)));
    }
    Ok(found)
}

fn find(devices: &[(String, u32)], interface: &Interface) -> Result<u32, Failure> {
    let mac = interface.mac.map(|byte| format!("{byte:02x}")).join(":");
    let mut matching = devices.iter().filter(|(address, _)| *address == mac);
    match (matching.next(), matching.next()) {
        (Some((_, index)), None) => Ok(*index),
        (Some(_), Some(_)) => Err(missing(interface, &format!("two network devices have the address {mac}"))),
        _ => Err(missing(
            interface,
            &format!("no network device that this kernel drives has the address {mac}"),
        )),
    }
}

fn missing(interface: &Interface, why: &str) -> Failure {
    Failure::new(Code::BadValue, format!("{}: {why}", interface.name))
}

fn set_up(kernel: &mut Kernel, interface: &Interface, index: u32) -> Result<(), Failure> {
    let Interface { name, mtu, addresses, .. } = interface;
    kernel.rename(index, name).context(Code::BadValue, name)?;
    only_what_is_said(name, addresses.iter().any(|own| own.address.is_ipv6()))
        .context(Code::Internal, name)?;
    kernel.up(index, *mtu).context(Code::BadValue, format!("{name}: an MTU of {mtu}"))?;
    for own in addresses {
        let (address, prefix) = (own.address, own.prefix);
        kernel.address(index, *own).context(Code::BadValue, format!("{name}: {address}/{prefix}"))?;
    }
    Ok(())
}

/// What IPv6 makes up by itself stays out: addresses of its own, and what anybody on the network advertises.
fn only_what_is_said(name: &str, used: bool) -> io::Result<()> {
    let folder = format!("/proc/sys/net/ipv6/conf/{name}");
    // An interface with a small MTU has no IPv6 at all.
    if !used && !fs::exists(&folder)? {
        return Ok(());
    }
    let unused = if used { "0" } else { "1" };
    let settings = [
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_redirects", "0"),
        ("addr_gen_mode", "1"),
        ("disable_ipv6", unused),
    ];
    settings.iter().try_for_each(|(key, value)| fs::write(format!("{folder}/{key}"), value))
}
