// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! NETWORK against docs/protocol.md: what it says, and what a host may not say.

use std::net::IpAddr;

use crate::channel::frame::Frame;
use crate::channel::message::{decode, kind, Message};
use crate::failure::{Code, Failure};
use crate::network::request::{Interface, Network, Prefixed, Route};
use crate::tests::message::Payload;

const MAC: [u8; 6] = [0x02, 0x42, 0x0A, 7, 0, 2];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Payload {
    fn ip(self, text: &str) -> Self {
        match ip(text) {
            IpAddr::V4(address) => self.raw(&[4]).raw(&address.octets()),
            IpAddr::V6(address) => self.raw(&[6]).raw(&address.octets()),
        }
    }

    fn net(self, text: &str) -> Self {
        let (address, prefix) = text.split_once('/').unwrap();
        self.ip(address).raw(&[prefix.parse().unwrap()])
    }

    fn interface(self, mac: &[u8], mtu: u16, name: &[u8], addresses: &[&str]) -> Self {
        let head = self.raw(mac).u16(mtu).bytes(name).u16(u16::try_from(addresses.len()).unwrap());
        addresses.iter().fold(head, |payload, address| payload.net(address))
    }

    fn route(self, interface: u8, flags: u8, destination: &str, more: &[&str]) -> Self {
        let head = self.raw(&[interface, flags]).u32(7).net(destination);
        more.iter().fold(head, |payload, address| payload.ip(address))
    }
}

fn of(count: u8) -> Payload {
    Payload::default().raw(&[count, 0, 0, 0])
}

/// A network of two interfaces and two routes.
pub fn network_payload() -> Vec<u8> {
    let eth1 = [2, 0, 0, 0, 0, 1];
    let interfaces = of(2).interface(&MAC, 1_400, b"eth0", &["10.7.0.2/24", "fd07::2/64"]).interface(
        &eth1,
        68,
        b"eth1",
        &[],
    );
    interfaces
        .u16(2)
        .route(0, 1, "0.0.0.0/0", &["10.7.0.1"])
        .route(0, 7, "fd08::/16", &["fe80::1", "fd07::2"])
        .0
}

fn read(payload: &[u8]) -> Result<Message, Failure> {
    decode(Frame { kind: kind::NETWORK, id: 0, payload: payload.to_vec() })
}

#[allow(clippy::needless_pass_by_value)] // made for the one call
fn refused(payload: Payload) -> Code {
    read(&payload.0).unwrap_err().code
}

#[test]
fn fields_are_the_documented_ones() {
    let own = |address, prefix| Prefixed { address: ip(address), prefix };
    let expected = Network {
        interfaces: vec![
            Interface {
                mac: MAC,
                mtu: 1_400,
                name: "eth0".to_owned(),
                addresses: vec![own("10.7.0.2", 24), own("fd07::2", 64)],
            },
            Interface { mac: [2, 0, 0, 0, 0, 1], mtu: 68, name: "eth1".to_owned(), addresses: Vec::new() },
        ],
        routes: vec![
            Route {
                interface: 0,
                metric: 7,
                destination: own("0.0.0.0", 0),
                gateway: Some(ip("10.7.0.1")),
                source: None,
                on_link: false,
            },
            Route {
                interface: 0,
                metric: 7,
                destination: own("fd08::", 16),
                gateway: Some(ip("fe80::1")),
                source: Some(ip("fd07::2")),
                on_link: true,
            },
        ],
    };
    assert_eq!(read(&network_payload()), Ok(Message::Network(expected)));
}

#[test]
fn cut_anywhere_or_longer_is_a_violation() {
    let whole = network_payload();
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length]).unwrap_err().code, Code::Protocol, "{length}");
    }
    assert_eq!(read(&[whole, vec![0]].concat()).unwrap_err().code, Code::Protocol);
    assert!(decode(Frame { kind: kind::NETWORK, id: 1, payload: network_payload() }).is_err());
}

#[test]
fn values_that_no_network_has_are_refused() {
    let one =
        |mac: &[u8], mtu, name: &[u8], addresses: &[&str]| of(1).interface(mac, mtu, name, addresses).u16(0);
    assert!(read(&one(&MAC, 1_500, b"eth0.5_a-b", &["10.0.0.1/32"]).0).is_ok());
    assert!(read(&one(&MAC, 1_279, b"e", &["10.0.0.1/8"]).0).is_ok());
    for name in [
        &b""[..],
        b"sixteen-letters-",
        b"a/b",
        b"..",
        b".",
        b"lo",
        b"all",
        b"default",
        b"a b",
        b"\xff",
        b"a\0",
    ] {
        assert_eq!(refused(one(&MAC, 1_500, name, &[])), Code::BadValue, "{name:?}");
    }
    for mac in [[0; 6], [1, 0, 0, 0, 0, 0], [0xFF; 6]] {
        assert_eq!(refused(one(&mac, 1_500, b"e", &[])), Code::BadValue);
    }
    for (mtu, address) in [(0, "10.0.0.1/8"), (67, "10.0.0.1/8"), (1_279, "fd00::1/8")] {
        assert_eq!(refused(one(&MAC, mtu, b"e", &[address])), Code::BadValue, "{mtu}");
    }
    let addresses = [
        "0.0.0.0/8",
        "127.0.0.1/8",
        "224.0.0.1/8",
        "10.0.0.1/33",
        "10.0.0.1/0",
        "::/64",
        "::1/128",
        "ff02::1/64",
    ];
    for address in [&addresses[..], &["fd00::1/129"]].concat() {
        assert_eq!(refused(one(&MAC, 1_500, b"e", &[address])), Code::BadValue, "{address}");
    }
    let twice = of(2).interface(&MAC, 1_500, b"a", &[]);
    assert_eq!(refused(twice.clone().interface(&MAC, 1_500, b"b", &[]).u16(0)), Code::BadValue);
    assert_eq!(refused(twice.interface(&[2; 6], 1_500, b"a", &[]).u16(0)), Code::BadValue);
}

#[test]
fn routes_that_lead_nowhere_are_refused() {
    let one = |interface, flags, destination: &str, more: &[&str]| {
        of(1).interface(&MAC, 1_500, b"e", &[]).u16(1).route(interface, flags, destination, more)
    };
    assert!(read(&one(0, 1, "10.0.0.0/8", &["10.0.0.1"]).0).is_ok());
    assert_eq!(refused(one(1, 0, "10.0.0.0/8", &[])), Code::BadValue);
    assert_eq!(refused(one(0, 8, "10.0.0.0/8", &[])), Code::BadValue);
    assert_eq!(refused(one(0, 1, "10.0.0.0/8", &["fe80::1"])), Code::BadValue);
    assert_eq!(refused(one(0, 2, "fd00::/8", &["10.0.0.1"])), Code::BadValue);
    assert_eq!(refused(one(0, 1, "127.0.0.0/8", &["10.0.0.1"])), Code::BadValue);
    assert_eq!(refused(one(0, 1, "::1/128", &["fe80::1"])), Code::BadValue);
    assert_eq!(refused(one(0, 0, "10.0.0.0/33", &[])), Code::BadValue);
}

#[test]
fn counts_are_bounded_before_anything_is_kept() {
    for count in [0, 9, 255] {
        assert_eq!(refused(of(count)), Code::BadValue);
    }
    assert_eq!(refused(Payload::default().raw(&[1, 0, 1, 0])), Code::BadValue);
    let many = |addresses: &[&str]| of(1).interface(&MAC, 1_500, b"e", addresses);
    assert!(read(&many(&["10.0.0.1/8"; 64]).u16(0).0).is_ok());
    assert_eq!(refused(many(&["10.0.0.1/8"; 65]).u16(0)), Code::BadValue);
    assert_eq!(refused(many(&[]).u16(257)), Code::BadValue);
    let routes = (0..256).fold(many(&[]).u16(256), |payload, _| payload.route(0, 0, "10.0.0.0/8", &[]));
    assert!(read(&routes.0).is_ok());
}
