// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! What NETWORK says, checked in every value. Whether the kernel takes it is its business.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::channel::message::{bad, Fields};
use crate::failure::Failure;

const MAX_INTERFACES: u8 = 8;
const MAX_ADDRESSES: u16 = 64;
const MAX_ROUTES: u16 = 256;
/// `IFNAMSIZ` without the NUL.
const MAX_NAME: usize = 15;
/// `ETH_MIN_MTU`; IPv6 has no interface below `IPV6_MIN_MTU`.
const MIN_MTU: u16 = 68;
const MIN_MTU_V6: u16 = 1_280;
const GATEWAY: u8 = 1;
const SOURCE: u8 = 2;
const ON_LINK: u8 = 4;

/// An address and how many bits of it its network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixed {
    pub address: IpAddr,
    pub prefix: u8,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// By which it is recognised.
    pub mac: [u8; 6],
    pub mtu: u16,
    pub name: String,
    pub addresses: Vec<Prefixed>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Number in the list of interfaces.
    pub interface: usize,
    pub metric: u32,
    pub destination: Prefixed,
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
    pub on_link: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    pub interfaces: Vec<Interface>,
    pub routes: Vec<Route>,
}

/// Reads it off the front of a payload.
pub fn read(fields: &mut Fields) -> Result<Network, Failure> {
    let [count, zeros @ ..] = fields.array::<4>()?;
    if !(1..=MAX_INTERFACES).contains(&count) || zeros != [0; 3] {
        return Err(bad(format!("NETWORK of {count} interfaces")));
    }
    let interfaces = (0..count).map(|_| interface(fields)).collect::<Result<Vec<_>, _>>()?;
    for (at, one) in interfaces.iter().enumerate() {
        let others = interfaces.iter().skip(at + 1);
        if others.clone().any(|other| other.mac == one.mac || other.name == one.name) {
            return Err(bad(format!("network interface {} stands twice", one.name)));
        }
    }
    let count = fields.u16()?;
    if count > MAX_ROUTES {
        return Err(bad(format!("NETWORK with {count} routes")));
    }
    let routes = (0..count).map(|_| route(fields, interfaces.len())).collect::<Result<Vec<_>, _>>()?;
    Ok(Network { interfaces, routes })
}

fn interface(fields: &mut Fields) -> Result<Interface, Failure> {
    let (mac, mtu) = (fields.array::<6>()?, fields.u16()?);
    let name = name(fields.bytes()?)?;
    let count = fields.u16()?;
    if count > MAX_ADDRESSES {
        return Err(bad(format!("{name} with {count} addresses")));
    }
    let addresses = (0..count).map(|_| own(fields, &name)).collect::<Result<Vec<_>, _>>()?;
    // The lowest bit says that it is a group's.
    if mac == [0; 6] || mac[0] & 1 != 0 {
        return Err(bad(format!("{name} with an address that no interface has")));
    }
    let least = if addresses.iter().any(|own| own.address.is_ipv6()) { MIN_MTU_V6 } else { MIN_MTU };
    if mtu < least {
        return Err(bad(format!("{name} with an MTU of {mtu}")));
    }
    Ok(Interface { mac, mtu, name, addresses })
}

/// A name that is one folder below /proc/sys and no other interface's.
fn name(bytes: &[u8]) -> Result<String, Failure> {
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.-".contains(byte);
    let text = String::from_utf8_lossy(bytes).into_owned();
    let special = ["lo", "all", "default"].contains(&text.as_str()) || text.starts_with('.');
    if !(1..=MAX_NAME).contains(&bytes.len()) || !bytes.iter().all(known) || special {
        return Err(bad("name of a network interface"));
    }
    Ok(text)
}

fn address(fields: &mut Fields) -> Result<IpAddr, Failure> {
    match fields.u8()? {
        4 => Ok(Ipv4Addr::from(fields.array::<4>()?).into()),
        6 => Ok(Ipv6Addr::from(fields.array::<16>()?).into()),
        family => Err(bad(format!("address of family {family}"))),
    }
}

fn prefixed(fields: &mut Fields) -> Result<Prefixed, Failure> {
    let (address, prefix) = (address(fields)?, fields.u8()?);
    if prefix > if address.is_ipv4() { 32 } else { 128 } {
        return Err(bad(format!("{address} with a prefix of {prefix} bits")));
    }
    Ok(Prefixed { address, prefix })
}

/// An address that an interface may have; of another machine's loopback there is none.
fn own(fields: &mut Fields, name: &str) -> Result<Prefixed, Failure> {
    let own = prefixed(fields)?;
    let address = own.address;
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || own.prefix == 0 {
        return Err(bad(format!("{name} with the address {address}/{}", own.prefix)));
    }
    Ok(own)
}

fn route(fields: &mut Fields, interfaces: usize) -> Result<Route, Failure> {
    let (interface, flags, metric) = (usize::from(fields.u8()?), fields.u8()?, fields.u32()?);
    let destination = prefixed(fields)?;
    let gateway = if flags & GATEWAY == 0 { None } else { Some(address(fields)?) };
    let source = if flags & SOURCE == 0 { None } else { Some(address(fields)?) };
    let here = destination.address;
    let foreign = |other: &Option<IpAddr>| other.is_some_and(|other| other.is_ipv4() != here.is_ipv4());
    // The loopback's way is the kernel's alone.
    let to_itself = here.is_loopback() && destination.prefix > 0;
    if interface >= interfaces
        || flags & !(GATEWAY | SOURCE | ON_LINK) != 0
        || foreign(&gateway)
        || foreign(&source)
        || to_itself
    {
        return Err(bad(format!("route to {here}/{}", destination.prefix)));
    }
    Ok(Route { interface, metric, destination, gateway, source, on_link: flags & ON_LINK != 0 })
}
