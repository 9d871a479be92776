// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The measured kernel command line: the only configuration that the host cannot choose unseen.

use crate::root::verity::Verity;
use crate::workload::sha256;

/// Who decides what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The host.
    Unbound,
    /// The workload document with this SHA-256.
    Workload([u8; sha256::BYTES]),
}

/// What the `sev_agent.` keys say (docs/protocol.md, "Measured command line").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    pub debug: bool,
    pub log: bool,
    pub verity: Option<Verity>,
    /// Always there in what `parse` returns.
    pub binding: Option<Binding>,
}

/// Reads the agent's keys; other words belong to the kernel and are passed over.
///
/// Errors: an unknown `sev_agent.` key, a key given twice, a malformed value. All of them are fatal, so that a
/// misspelt key cannot switch a protection off.
pub fn parse(text: &[u8]) -> Result<CommandLine, String> {
    let mut result = CommandLine::default();
    let mut seen: Vec<&str> = Vec::new();
    for word in text.split(u8::is_ascii_whitespace) {
        let Some(word) = word.strip_prefix(b"sev_agent.") else { continue };
        let word = std::str::from_utf8(word).map_err(|_| "sev_agent. key is not UTF-8".to_owned())?;
        let (key, value) = match word.split_once('=') {
            None if word == "unbound" => (word, None),
            None => return Err(format!("sev_agent.{word}: value missing")),
            Some((key, value)) => (key, Some(value)),
        };
        if seen.contains(&key) {
            return Err(format!("sev_agent.{key}: given twice"));
        }
        seen.push(key);
        match (key, value) {
            ("profile", Some("production")) => result.debug = false,
            ("profile", Some("debug")) => result.debug = true,
            ("log", Some("0")) => result.log = false,
            ("log", Some("1")) => result.log = true,
            ("verity", Some(value)) => {
                result.verity = Some(Verity::parse(value).map_err(|why| format!("sev_agent.verity: {why}"))?);
            }
            ("unbound", None) => bind(&mut result, Binding::Unbound)?,
            ("workload", Some(value)) => {
                let digest = sha256::from_hex(value);
                let digest = digest.ok_or("sev_agent.workload: not 64 lower-case hexadecimal digits")?;
                bind(&mut result, Binding::Workload(digest))?;
            }
            ("profile" | "log" | "unbound", _) => return Err(format!("sev_agent.{key}: value not known")),
            _ => return Err(format!("sev_agent.{key}: key not known")),
        }
    }
    match (result.binding, &result.verity) {
        (None, _) => {
            Err("neither sev_agent.workload= nor sev_agent.unbound: nothing says what runs".to_owned())
        }
        (Some(Binding::Workload(_)), Some(_)) => {
            Err("sev_agent.verity beside sev_agent.workload, whose document has it".to_owned())
        }
        _ => Ok(result),
    }
}

fn bind(result: &mut CommandLine, binding: Binding) -> Result<(), String> {
    match result.binding.replace(binding) {
        None => Ok(()),
        Some(_) => Err("both sev_agent.workload= and sev_agent.unbound".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn defaults_are_production_without_log() {
        let parsed = parse(b"console=ttyS0 quiet xsev_agent.log=1 sev_agent.unbound\n").unwrap();
        let binding = Some(Binding::Unbound);
        assert_eq!(parsed, CommandLine { debug: false, log: false, verity: None, binding });
    }

    #[test]
    fn all_keys_are_read() {
        let line = format!(
            "quiet sev_agent.profile=debug\tsev_agent.log=1 sev_agent.verity={HASH}:-:17 sev_agent.unbound\n"
        );
        let parsed = parse(line.as_bytes()).unwrap();
        assert!(parsed.debug && parsed.log);
        assert_eq!(parsed.verity.unwrap().data_blocks, 17);
    }

    #[test]
    fn anything_doubtful_is_refused() {
        for line in [
            "sev_agent.verty=x",
            "sev_agent.",
            "sev_agent.log",
            "sev_agent.log=2",
            "sev_agent.log=",
            "sev_agent.profile=Debug",
            "sev_agent.profile=debug sev_agent.profile=debug",
            "sev_agent.verity=",
            "sev_agent.verity=::",
        ] {
            let line = format!("sev_agent.unbound {line}");
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(parse(b"sev_agent.unbound sev_agent.\xff=1").is_err());
    }

    #[test]
    fn exactly_one_word_says_who_decides() {
        let bound = format!("sev_agent.workload={HASH}");
        let expected = Binding::Workload(sha256::from_hex(HASH).unwrap());
        assert_eq!(parse(bound.as_bytes()).unwrap().binding, Some(expected));
        assert_eq!(parse(b"quiet sev_agent.unbound").unwrap().binding, Some(Binding::Unbound));
        for line in [
            String::new(),
            "quiet sev_agent.log=1".to_owned(),
            format!("{bound} sev_agent.unbound"),
            format!("sev_agent.unbound {bound}"),
            format!("{bound} {bound}"),
            "sev_agent.unbound sev_agent.unbound".to_owned(),
            "sev_agent.unbound=1".to_owned(),
            "sev_agent.unbound=".to_owned(),
            "sev_agent.workload".to_owned(),
            "sev_agent.workload=".to_owned(),
            bound.to_uppercase().replace("SEV_AGENT.WORKLOAD", "sev_agent.workload"),
            format!("{bound}0"),
            format!("{bound} sev_agent.verity={HASH}:-:1"),
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
    }
}
