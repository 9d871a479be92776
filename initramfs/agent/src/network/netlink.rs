// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Requests to the guest's own kernel about its network, and whether it did what they say (linux/rtnetlink.h).

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::IpAddr;

use crate::network::request::{Prefixed, Route};
use crate::sys;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const HEADER: usize = 16;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const ERROR: u16 = 2;
const UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// No duplicate address detection: whose addresses these are was settled by who gave them.
const NODAD: u8 = 0x2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const SCOPE_LINK: u8 = 253;
const UNICAST: u8 = 1;
const ON_LINK: u32 = 4;

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    u8::try_from(family).unwrap_or(0)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A message that grows; what is in it comes from values that were checked, and is short.
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        for part in [kind, REQUEST | ACK | flags] {
            bytes.extend_from_slice(&part.to_ne_bytes());
        }
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).unwrap_or(4);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn bytes(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(0);
        if let Some(place) = self.0.first_chunk_mut::<4>() {
            *place = length.to_ne_bytes();
        }
        self.0
    }
}

/// The kernel's end of it.
pub struct Kernel(File);

impl Kernel {
    pub fn open() -> io::Result<Self> {
        sys::network::route_socket().map(Self)
    }

    fn ask(&mut self, request: Request) -> io::Result<()> {
        self.0.write_all(&request.bytes())?;
        // Header, and struct nlmsgerr, which begins with the error; the request itself follows.
        let mut answer = [0; 4_096];
        let count = self.0.read(&mut answer)?;
        let answer = answer.get(..count).unwrap_or_default();
        let kind = answer.get(4..6).and_then(|field| field.try_into().ok()).map(u16::from_ne_bytes);
        let error = answer.get(HEADER..HEADER + 4).and_then(|field| field.try_into().ok());
        match (kind, error.map(i32::from_ne_bytes)) {
            (Some(ERROR), Some(0)) => Ok(()),
            (Some(ERROR), Some(error)) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
            _ => Err(io::Error::other("no answer of the kernel's")),
        }
    }

    fn link(index: u32, flags: u32) -> Request {
        // struct ifinfomsg: family, type, index, flags, mask of changes.
        let mut body = vec![0; 4];
        for part in [index, flags, flags] {
            body.extend_from_slice(&part.to_ne_bytes());
        }
        Request::new(NEW_LINK, 0, &body)
    }

    /// Of an interface that is down.
    pub fn rename(&mut self, index: u32, name: &str) -> io::Result<()> {
        let text = [name.as_bytes(), &[0]].concat();
        self.ask(Self::link(index, 0).attribute(IFLA_IFNAME, &text))
    }

    pub fn up(&mut self, index: u32, mtu: u16) -> io::Result<()> {
        self.ask(Self::link(index, UP).attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes()))
    }

    pub fn address(&mut self, index: u32, own: Prefixed) -> io::Result<()> {
        // struct ifaddrmsg: family, prefix, flags, scope, index.
        let mut body = vec![family(own.address), own.prefix, NODAD, 0];
        body.extend_from_slice(&index.to_ne_bytes());
        let bytes = octets(own.address);
        let request = Request::new(NEW_ADDRESS, CREATE | EXCLUSIVE, &body)
            .attribute(IFA_LOCAL, &bytes)
            .attribute(IFA_ADDRESS, &bytes);
        self.ask(match own.address {
            IpAddr::V4(address) if own.prefix < 31 => {
                let host_bits = u32::MAX.checked_shr(own.prefix.into()).unwrap_or(0);
                let broadcast = u32::from(address) | host_bits;
                request.attribute(IFA_BROADCAST, &broadcast.to_be_bytes())
            }
            _ => request,
        })
    }

    pub fn route(&mut self, index: u32, route: &Route) -> io::Result<()> {
        let Prefixed { address, prefix } = route.destination;
        let scope = if address.is_ipv4() && route.gateway.is_none() { SCOPE_LINK } else { 0 };
        // struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, flags.
        let mut body = vec![family(address), prefix, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, scope, UNICAST];
        body.extend_from_slice(&(if route.on_link { ON_LINK } else { 0 }).to_ne_bytes());
        let mut request = Request::new(NEW_ROUTE, CREATE | EXCLUSIVE, &body)
            .attribute(RTA_OIF, &index.to_ne_bytes())
            .attribute(RTA_PRIORITY, &route.metric.to_ne_bytes());
        if prefix > 0 {
            request = request.attribute(RTA_DST, &octets(address));
        }
        for (kind, address) in [(RTA_GATEWAY, route.gateway), (RTA_PREFSRC, route.source)] {
            if let Some(address) = address {
                request = request.attribute(kind, &octets(address));
            }
        }
        self.ask(request)
    }
}
