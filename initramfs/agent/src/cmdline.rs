// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! The measured kernel command line: the only configuration that the host cannot choose unseen.

use crate::root::verity::Verity;

/// What the `sev_agent.` keys say (docs/protocol.md, "Measured command line").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    pub debug: bool,
    pub log: bool,
    pub verity: Option<Verity>,
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
        let (key, value) = word.split_once('=').ok_or_else(|| format!("sev_agent.{word}: value missing"))?;
        if seen.contains(&key) {
            return Err(format!("sev_agent.{key}: given twice"));
        }
        seen.push(key);
        match (key, value) {
            ("profile", "production") => result.debug = false,
            ("profile", "debug") => result.debug = true,
            ("log", "0") => result.log = false,
            ("log", "1") => result.log = true,
            ("verity", value) => {
                result.verity = Some(Verity::parse(value).map_err(|why| format!("sev_agent.verity: {why}"))?);
            }
            ("profile" | "log", _) => return Err(format!("sev_agent.{key}: value not known")),
            _ => return Err(format!("sev_agent.{key}: key not known")),
        }
    }
    Ok(result)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn defaults_are_production_without_log() {
        let parsed = parse(b"console=ttyS0 quiet xsev_agent.log=1\n").unwrap();
        assert_eq!(parsed, CommandLine { debug: false, log: false, verity: None });
    }

    #[test]
    fn all_keys_are_read() {
        let line = format!("quiet sev_agent.profile=debug\tsev_agent.log=1 sev_agent.verity={HASH}:-:17\n");
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
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(parse(b"sev_agent.\xff=1").is_err());
    }
}
