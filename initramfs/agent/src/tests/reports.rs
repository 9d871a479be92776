// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Reports up to the missing processor: in its place, a folder of ordinary files that behaves as configfs does.

use std::cell::Cell;
use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use super::fuzz::Random;
use crate::reports::client::{self, parse};
use crate::reports::domain::Domain;
use crate::reports::service::{self, MAX_CLIENTS};
use crate::reports::tsm::{self, Configfs, Interface};
use crate::workload::sha256::to_hex;

const REPORT_BYTES: usize = 1_184;
const AUXBLOB: &[u8] = b"certificates";

/// What the processor is replaced by. `steps`: by how much the number grows with the first writes, then by one.
struct Fake {
    files: Configfs,
    folder: PathBuf,
    steps: Cell<Vec<u64>>,
    report_bytes: usize,
    refusal: Option<i32>,
}

impl Fake {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("agent-reports-{}-{number}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let files = Configfs::at(folder.clone());
        Self { files, folder, steps: Cell::default(), report_bytes: REPORT_BYTES, refusal: None }
    }

    fn growing(steps: &[u64]) -> Self {
        let fake = Self::new();
        fake.steps.set(steps.to_vec());
        fake
    }

    fn refusing(error: i32) -> Self {
        let mut fake = Self::new();
        fake.refusal = Some(error);
        fake
    }

    fn giving(report_bytes: usize) -> Self {
        let mut fake = Self::new();
        fake.report_bytes = report_bytes;
        fake
    }

    fn put(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        fs::write(self.folder.join(name).join(attribute), bytes)
    }

    fn is_empty(&self) -> bool {
        fs::read_dir(&self.folder).unwrap().next().is_none()
    }
}

impl Interface for Fake {
    fn make(&self, name: &str) -> io::Result<()> {
        if let Some(error) = self.refusal {
            return Err(io::Error::from_raw_os_error(error));
        }
        self.files.make(name)?;
        self.put(name, "inblob", b"")?;
        self.put(name, "generation", b"41\n")?;
        self.put(name, "provider", b"sev_guest\n")?;
        self.put(name, "auxblob", AUXBLOB)
    }

    fn read(&self, name: &str, attribute: &str, most: usize) -> io::Result<Vec<u8>> {
        self.files.read(name, attribute, most)
    }

    fn write(&self, name: &str, attribute: &str, bytes: &[u8]) -> io::Result<()> {
        self.files.write(name, attribute, bytes)?;
        let mut steps = self.steps.take();
        let step = if steps.is_empty() { 1 } else { steps.remove(0) };
        self.steps.set(steps);
        let text = String::from_utf8(self.files.read(name, "generation", 64)?).unwrap();
        let number: u64 = text.trim().parse().unwrap();
        self.put(name, "generation", format!("{}\n", number + step).as_bytes())?;
        self.put(name, "outblob", &report(bytes, self.report_bytes))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        for entry in fs::read_dir(self.folder.join(name))? {
            fs::remove_file(entry?.path())?;
        }
        self.files.remove(name)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// `REPORT_DATA` is at 0x50, as in a report of SNP.
fn report(data: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; length];
    if let Some(slot) = bytes.get_mut(0x50..0x50 + data.len()) {
        slot.copy_from_slice(data);
    }
    bytes
}

#[test]
fn a_report_of_the_data() {
    let fake = Fake::new();
    let data = Domain::Workload.report_data(b"x");
    let evidence = tsm::ask(&fake, &data).unwrap();
    assert_eq!(evidence.report, report(&data, REPORT_BYTES));
    assert_eq!((evidence.provider.as_str(), evidence.auxblob.as_slice()), ("sev_guest", AUXBLOB));
    assert!(fake.is_empty());
    // What is left of an earlier request is not in the way.
    fake.make("agent").unwrap();
    assert!(tsm::ask(&fake, &data).is_ok() && fake.is_empty());
}

#[test]
fn a_report_that_could_be_somebody_elses_is_not_given() {
    let data = Domain::Host.report_data(b"x");
    // Once or twice another writer, then alone: asked again.
    for steps in [&[2][..], &[2, 3]] {
        assert!(tsm::ask(&Fake::growing(steps), &data).is_ok());
    }
    // Always another writer; or a write that was taken back when the file was closed, without a word.
    for steps in [[2, 2, 2], [0, 0, 0]] {
        let fake = Fake::growing(&steps);
        assert!(tsm::ask(&fake, &data).unwrap_err().contains("something else"));
        assert!(fake.is_empty());
    }
}

#[test]
fn without_a_processor_there_is_a_reason() {
    let data = [0; 64];
    let none = Fake::refusing(libc::ENXIO);
    assert!(tsm::ask(&none, &data).unwrap_err().contains("no SEV-SNP processor"));
    let absent = Configfs::at("/nowhere/tsm/report".into());
    assert!(tsm::ask(&absent, &data).unwrap_err().contains("kernel has no report interface"));
    let denied = Fake::refusing(libc::EACCES);
    assert!(tsm::ask(&denied, &data).unwrap_err().starts_with("report interface: "));
    for (length, said) in [(0, "empty report"), (16 * 1_024 + 1, "outblob: more than 16384 bytes")] {
        let odd = Fake::giving(length);
        assert!(tsm::ask(&odd, &data).unwrap_err().contains(said));
        assert!(odd.is_empty());
    }
    let longest = Fake::giving(16 * 1_024);
    assert!(tsm::ask(&longest, &data).is_ok());
}

#[test]
fn questions() {
    for (line, data) in
        [(&b"00\n"[..], &[0][..]), (b"00", &[0]), (b"0aFf\n", &[10, 255]), (&[b'7'; 128], &[0x77; 64])]
    {
        assert_eq!(parse(line).unwrap(), data);
    }
    let long = [b'7'; 130];
    for line in [
        &b""[..],
        b"\n",
        b"0",
        b"000\n",
        b"0x\n",
        b" 00",
        b"00\r\n",
        b"00\n00",
        b"00\n\n",
        b"+1",
        &long,
        &[0; 64],
    ] {
        assert!(parse(line).is_err(), "{}", line.escape_ascii());
    }
}

#[test]
fn mutated_questions() {
    let mut random = Random(0x5EED_0008);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..100_000 {
        let mut line = b"0123456789abcdefABCDEF00\n".to_vec();
        random.mutate(&mut line);
        match parse(&line) {
            Ok(data) => {
                assert!((1..=64).contains(&data.len()));
                assert!(line.to_ascii_lowercase().starts_with(to_hex(&data).as_bytes()));
                good += 1;
            }
            Err(_) => bad += 1,
        }
    }
    assert!(good > 1_000 && bad > 1_000, "{good} {bad}");
}

#[test]
fn answers_are_json_whatever_the_kernel_says() {
    assert_eq!(client::error("a \"b\"\\\n\u{e9}"), "{\"error\":\"a ?b????\"}\n");
}

/// The service with a thread of its own, as the process has it.
struct Served {
    agent: UnixStream,
    path: PathBuf,
    thread: JoinHandle<io::Result<()>>,
}

impl Served {
    fn start(fake: Fake) -> Self {
        let (agent, mut control) = UnixStream::pair().unwrap();
        let path = fake.folder.with_extension("sock");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let thread = thread::spawn(move || service::serve(&mut control, Some(&listener), &fake));
        Self { agent, path, thread }
    }

    fn client(&self, question: &[u8]) -> UnixStream {
        let mut client = UnixStream::connect(&self.path).unwrap();
        client.write_all(question).unwrap();
        client
    }

    fn host(&mut self, data: &[u8]) -> Vec<u8> {
        self.agent.write_all(&[&[u8::try_from(data.len()).unwrap()], data].concat()).unwrap();
        let mut length = [0; 4];
        self.agent.read_exact(&mut length).unwrap();
        let mut payload = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap()];
        self.agent.read_exact(&mut payload).unwrap();
        payload
    }

    fn end(self) {
        drop(self.agent);
        assert!(self.thread.join().unwrap().is_ok());
        fs::remove_file(self.path).unwrap();
    }
}

fn answer(mut client: UnixStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text
}

fn expected(data: &[u8]) -> String {
    let report_data = Domain::Workload.report_data(data);
    format!(
        "{{\"auxblob\":\"{}\",\"provider\":\"sev_guest\",\"report\":\"{}\",\"report_data\":\"{}\"}}\n",
        to_hex(AUXBLOB),
        to_hex(&report(&report_data, REPORT_BYTES)),
        to_hex(&report_data)
    )
}

#[test]
fn the_workload_asks_at_the_socket() {
    let served = Served::start(Fake::new());
    assert_eq!(answer(served.client(b"00ff\n")), expected(&[0, 255]));
    // Without a line's end, and in pieces.
    let mut slow = served.client(b"0");
    slow.write_all(b"1").unwrap();
    slow.shutdown(Shutdown::Write).unwrap();
    assert_eq!(answer(slow), expected(&[1]));
    served.end();
}

#[test]
fn the_hosts_reports_are_not_the_workloads() {
    let mut served = Served::start(Fake::new());
    let payload = served.host(b"same");
    let hosts = report(&Domain::Host.report_data(b"same"), REPORT_BYTES);
    let counted = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
    assert_eq!(payload, [vec![0; 4], counted(b"sev_guest"), counted(&hosts), counted(AUXBLOB)].concat());
    let workloads = answer(served.client(b"73616d65\n"));
    assert_eq!(workloads, expected(b"same"));
    assert!(!workloads.contains(&to_hex(&hosts)));
    served.end();
    let mut served = Served::start(Fake::refusing(libc::ENXIO));
    let payload = served.host(&[7; 64]);
    assert_eq!(payload[..4], [1, 0, 0, 0]);
    assert!(String::from_utf8_lossy(&payload).contains("no SEV-SNP processor"));
    assert!(answer(served.client(b"00\n")).starts_with("{\"error\":\"no SEV-SNP processor"));
    served.end();
}

#[test]
fn nobody_waits_for_a_client_that_says_nothing() {
    let mut served = Served::start(Fake::new());
    let mut silent: Vec<UnixStream> = (1..MAX_CLIENTS).map(|_| served.client(b"0")).collect();
    // One more is served beside them, and another, and one that never takes its answer.
    for _ in 0..3 {
        assert_eq!(answer(served.client(b"aa\n")), expected(&[0xaa]));
    }
    silent.push(served.client(b"bb\n"));
    // Behind as many as are let in, the rest waits at the door; the host's question does not.
    silent.extend((0..8).map(|_| served.client(b"0")));
    let late = served.client(b"cc\n");
    assert_eq!(served.host(b"x")[0], 0);
    drop(silent);
    assert_eq!(answer(late), expected(&[0xcc]));
    served.end();
}

#[test]
fn garbage_gets_a_reason_and_hurts_nobody() {
    let served = Served::start(Fake::new());
    for question in [&b"\n"[..], b"xyz\n", b"00\n11\n", &[b'0'; 129], &[0xff; 130]] {
        let text = answer(served.client(question));
        assert!(text.starts_with("{\"error\":\"") && text.contains("128 hexadecimal digits"), "{text}");
    }
    let mut random = Random(0x5EED_0009);
    for _ in 0..300 {
        let mut question = b"0123456789abcdef\n".to_vec();
        random.mutate(&mut question);
        let mut client = UnixStream::connect(&served.path).unwrap();
        // The other end may have heard enough already.
        let _ = client.write_all(&question).and_then(|()| client.shutdown(Shutdown::Write));
        let mut text = String::new();
        let _ = client.read_to_string(&mut text);
        assert!(text.starts_with("{\"error\":\"") || text.starts_with("{\"auxblob\":\""), "{text}");
    }
    assert_eq!(answer(served.client(b"dd\n")), expected(&[0xdd]));
    served.end();
}
