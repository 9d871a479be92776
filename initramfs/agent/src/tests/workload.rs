// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Workload documents: the corpus that every reader is tested with, damaged ones, and what a bound guest refuses.

use std::ffi::CString;

use super::fuzz::Random;
use crate::channel::message::{Run, Size};
use crate::failure::{Code, Failure};
use crate::process::command::{Capabilities, Command, Filter};
use crate::root::protect::Protected;
use crate::root::rootfs::Source;
use crate::workload::bound::Bound;
use crate::workload::document;
use crate::workload::process::{self, Doors};
use crate::workload::sha256;

const CORPUS: &str = include_str!("documents.txt");

fn lines() -> impl Iterator<Item = &'static str> {
    CORPUS.split('\n').filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn whole() -> String {
    lines().next().unwrap()[2..].to_owned()
}

fn bound(document: &str) -> Bound {
    Bound::accept(&sha256::digest(document.as_bytes()), document.as_bytes()).unwrap()
}

fn request(entry: u32, environment: &[&str]) -> Run {
    let environment = environment.iter().map(|entry| CString::new(*entry).unwrap()).collect();
    Run { entry, stdin_at_end: false, size: Size::default(), environment }
}

fn code<T>(result: Result<T, Failure>) -> Option<Code> {
    result.err().map(|failure| failure.code)
}

#[test]
fn the_corpus() {
    let whole = whole();
    assert!(document::parse(whole.as_bytes()).is_ok());
    let (mut accepted, mut refused) = (0, 0);
    for line in lines().skip(1) {
        let (old, new) = line[2..].split_once(" =>").unwrap();
        assert_eq!(whole.matches(old).count(), 1, "{line}");
        let text = whole.replace(old, new.strip_prefix(' ').unwrap_or(new));
        let result = document::parse(text.as_bytes());
        assert_eq!(result.is_ok(), line.starts_with('+'), "{line}: {:?}", result.err());
        accepted += usize::from(result.is_ok());
        refused += usize::from(result.is_err());
    }
    assert!(accepted > 20 && refused > 80, "{accepted} {refused}");
}

#[test]
fn mutated_documents() {
    let mut random = Random(0x5EED_0007);
    let valid = whole().into_bytes();
    let (mut good, mut bad) = (0, 0);
    for _ in 0..60_000 {
        let mut bytes = valid.clone();
        random.mutate(&mut bytes);
        match document::parse(&bytes) {
            Ok(_) => good += 1,
            Err(_) => bad += 1,
        }
    }
    assert!(good > 100 && bad > 1_000, "{good} {bad}");
}

#[test]
fn other_bytes_are_not_looked_at() {
    let whole = whole();
    let digest = sha256::digest(whole.as_bytes());
    assert!(Bound::accept(&digest, whole.as_bytes()).is_ok());
    for other in [String::new(), format!("{whole} "), whole.replace("chown", "fowner"), "[".repeat(1 << 20)] {
        assert_eq!(code(Bound::accept(&digest, other.as_bytes())), Some(Code::Refused));
    }
    // The right digest of what is no document.
    let twice = whole.replace("\"gid\":1001", "\"gid\":1001,\"gid\":1001");
    assert_eq!(
        code(Bound::accept(&sha256::digest(twice.as_bytes()), twice.as_bytes())),
        Some(Code::BadValue)
    );
}

#[test]
fn the_workload_starts_once_and_an_entry_as_often_as_it_says() {
    let mut guest = bound(&whole());
    assert_eq!(code(guest.run(&request(2, &[]))), Some(Code::Refused));
    let process = guest.run(&request(0, &[])).unwrap();
    assert_eq!(process.command.uid, 1000);
    let kill = 1 << 5;
    let sets = process.command.capabilities;
    assert_eq!((sets.bounding, sets.permitted, sets.effective), (kill | 1, kill, kill));
    assert_eq!((sets.inheritable, sets.ambient), (kill, kill));
    assert!(process.command.no_new_privileges && process.command.filter == Filter::Usual);
    assert_eq!(code(guest.run(&request(0, &[]))), Some(Code::Refused));
    for _ in 0..3 {
        assert_eq!(guest.run(&request(1, &[])).unwrap().command.capabilities, Capabilities::default());
    }
    assert_eq!(code(guest.run(&request(1, &[]))), Some(Code::Refused));
    assert_eq!(code(guest.run(&request(u32::MAX, &[]))), Some(Code::Refused));
}

#[test]
fn the_host_sets_what_is_open_to_it() {
    for bad in [
        &["LANG=a b"][..],
        &["LANG=123456789012345678901234567890123"],
        &["LANG=C", "LANG=C"],
        &["LANGUAGE=C"],
        &["PATH=/evil"],
        &["LD_PRELOAD=/evil.so"],
    ] {
        let mut guest = bound(&whole());
        assert_eq!(code(guest.run(&request(0, bad))), Some(Code::Refused), "{bad:?}");
        // A refusal does not use the start up.
        let process = guest.run(&request(0, &["LANG=C.UTF-8"])).unwrap();
        let environment: Vec<&[u8]> = process.command.environment.iter().map(CString::as_bytes).collect();
        assert_eq!(environment, [&b"PATH=/bin"[..], b"A=b=c", b"LANG=C.UTF-8"]);
    }
    assert_eq!(code(bound(&whole()).run(&request(1, &["LANG=C"]))), Some(Code::Refused));
}

#[test]
fn the_terminals_size_is_the_hosts_where_it_is_open() {
    let sized = Run { size: Size { rows: 9, columns: 9 }, ..request(0, &[]) };
    let mut guest = bound(&whole());
    assert_eq!(code(guest.run(&sized)), Some(Code::Refused));
    // A refusal does not use the start up.
    let process = guest.run(&request(0, &[])).unwrap();
    assert!(!process.command.terminal && !process.doors.resize);
    let (old, new) = lines()
        .find_map(|line| {
            line[2..]
                .split_once(" =>")
                .filter(|(_, new)| new.starts_with(" \"resize\":true") && line.starts_with('+'))
        })
        .unwrap();
    let process = bound(&whole().replace(old, &new[1..])).run(&sized).unwrap();
    assert!(process.command.terminal && process.doors.resize);
}

#[test]
fn a_command_of_the_hosts_choice_where_it_is_open() {
    let wanted = |uid| Command {
        argv: vec![CString::new("sh").unwrap()],
        uid,
        terminal: true,
        capabilities: Capabilities::unbound(uid),
        ..Command::default()
    };
    assert_eq!(code(bound(&whole()).opens_commands()), Some(Code::Refused));
    let guest = bound(&whole().replace("\"host\":{\"exec\":false", "\"host\":{\"exec\":true"));
    guest.opens_commands().unwrap();
    let both = (1 << 5) | 1;
    for (uid, permitted) in [(0, both), (1000, 0), (7, 0)] {
        let process = guest.command(wanted(uid));
        let sets = process.command.capabilities;
        assert_eq!((sets.bounding, sets.permitted, sets.effective), (both, permitted, permitted), "{uid}");
        assert_eq!((sets.inheritable, sets.ambient), (0, 0));
        assert_eq!(process.doors, Doors::all());
        let expected = Command {
            capabilities: sets,
            no_new_privileges: true,
            filter: Filter::Usual,
            limits: process.command.limits.clone(),
            umask: 0o077,
            ..wanted(uid)
        };
        assert_eq!(process.command, expected);
        assert_eq!(expected.limits.len(), 2);
    }
}

#[test]
fn engines_have_defaults_under_their_names() {
    let named = |old: &str, new: &str| {
        let text = whole();
        assert_eq!(text.matches(old).count(), 1, "{old}");
        bound(&text.replace(old, new))
    };
    let sets = "{\"ambient\":[\"kill\"],\"bounding\":[\"chown\",\"kill\"],\"effective\":[\"kill\"],\
                \"inheritable\":[\"kill\"],\"permitted\":[\"kill\"]}";
    let found = named(sets, "\"docker-1\"").run(&request(0, &[])).unwrap().command.capabilities;
    // Its uid is not root's.
    assert_eq!((found.bounding.count_ones(), found.permitted), (14, 0));
    let limits = "[{\"hard\":0,\"name\":\"core\",\"soft\":0},{\"hard\":\"unlimited\",\"name\":\"nofile\",\"soft\":1024}]";
    let found = named(limits, "\"podman-1\"").run(&request(0, &[])).unwrap().command.limits;
    assert_eq!(found.iter().map(|limit| limit.soft).collect::<Vec<_>>(), [1 << 20, 1 << 22]);
    let own = "\"seccomp\":\"default\",\"terminal\":false,\"uid\":1000";
    for engine in ["docker-1", "docker-2", "podman-1", "podman-2"] {
        let new = own.replace("default", engine);
        let Filter::Spelt(rules) = named(own, &new).run(&request(0, &[])).unwrap().command.filter else {
            panic!()
        };
        // What the kernel takes, and execve among what is allowed.
        assert!(rules.program().len() < 4_096 && rules.rules.iter().any(|rule| rule.calls.contains(&59)));
        let mut guest = named(
            "\"masked_paths\":[\"/etc/shadow\",\"/proc/acpi\"]",
            &format!("\"masked_paths\":\"{engine}\""),
        );
        guest.connect().unwrap();
        let request = guest.container(Vec::new()).unwrap();
        assert!(request.protected.masked.contains(&"/proc/kcore".to_owned()), "{engine}");
    }
}

#[test]
fn grammars() {
    for (allow, good, bad) in [
        ("digits", "0123", "12a"),
        ("hex", "09af", "0F"),
        ("word", "aZ0._-", "a b"),
        ("path", "/a/b..c", "/a/../b"),
        ("path", "/", "a"),
        ("line", "any täxt; $(x)", "two\nlines"),
        ("line", "", "\u{85}"),
    ] {
        let document = whole().replace("\"allow\":\"word\"", &format!("\"allow\":\"{allow}\""));
        let with = |value: &str| bound(&document).run(&request(0, &[&format!("LANG={value}")]));
        assert!(with(good).is_ok(), "{allow} {good}");
        assert_eq!(code(with(bad)), Some(Code::Refused), "{allow} {bad}");
    }
}

#[test]
fn signals_are_those_of_the_list() {
    let doors = bound(&whole()).run(&request(0, &[])).unwrap().doors;
    let open: Vec<i32> = (-1..200).filter(|number| doors.takes_signal(*number)).collect();
    assert_eq!(open, [1, 15]);
    assert!((1..=64).all(|number| process::Doors::all().takes_signal(number)));
}

#[test]
fn a_guest_without_a_network_takes_none() {
    let offline =
        whole().replace("\"ethernet\"", "\"none\"").replace("\"network\":true", "\"network\":false");
    let mut guest = bound(&offline);
    assert_eq!(code(guest.connect()), Some(Code::Refused));
    assert!(!guest.container(Vec::new()).unwrap().ethernet);
}

#[test]
fn only_raw_reports_put_the_interface_into_the_container() {
    for (reports, inside) in [("none", false), ("socket", false), ("raw", true)] {
        let host = whole().replace("\"reports\":true", "\"reports\":false");
        let text = host.replace("\"reports\":\"socket\"", &format!("\"reports\":\"{reports}\""));
        let mut guest = bound(&text);
        guest.connect().unwrap();
        assert_eq!(guest.container(Vec::new()).unwrap().reports, inside, "{reports}");
        assert!(!guest.host_may_attest());
    }
    assert!(bound(&whole()).host_may_attest());
}

#[test]
fn files_and_the_host_name() {
    let mut guest = bound(&whole());
    assert_eq!(code(guest.supply(1, Vec::new())), Some(Code::Refused));
    assert_eq!(code(guest.supply(0, vec![0; 4_097])), Some(Code::Refused));
    guest.supply(0, vec![7; 4_096]).unwrap();
    assert_eq!(code(guest.supply(0, vec![8; 4_096])), Some(Code::Refused));
    // Its network is the host's to describe: once, and before the container is made.
    assert_eq!(code(guest.container(b"other".to_vec())), Some(Code::BadValue));
    guest.connect().unwrap();
    assert_eq!(code(guest.connect()), Some(Code::Refused));
    let request = guest.container(b"other".to_vec()).unwrap();
    assert_eq!(request.hostname, b"other");
    assert_eq!(request.files, [("/etc/resolv.conf".to_owned(), vec![7; 4_096])]);
    assert!(!request.reports && request.mounts.len() == 1 && request.ethernet);
    let folders: Vec<_> =
        request.folders.iter().map(|folder| (folder.target.as_str(), folder.copied)).collect();
    assert_eq!(folders, [("/data", Some(65_536)), ("/shared", None)]);
    assert_eq!(request.sysctls.len(), 2);
    let protected = Protected {
        root: true,
        read_only: vec!["/usr".to_owned()],
        masked: vec!["/etc/shadow".to_owned(), "/proc/acpi".to_owned()],
    };
    assert_eq!(request.protected, protected);
    assert!(matches!(request.root, Source::Tar { bytes: 10_240, sha256: Some(_) }));

    let mut guest = bound(&whole().replace("\"hostname\":true", "\"hostname\":false"));
    guest.connect().unwrap();
    assert_eq!(code(guest.container(b"other".to_vec())), Some(Code::Refused));
    let request = guest.container(Vec::new()).unwrap();
    assert_eq!((request.hostname.as_slice(), request.files.len()), (&b"box-1"[..], 0));
}
