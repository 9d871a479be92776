// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! What a workload document says of a process, and of what the host may do to it.

use std::ffi::CString;

use crate::process::command::{capability_mask, Capabilities, Command, Limit, CAPABILITIES, RLIMITS};
use crate::workload::calls;
use crate::workload::document::{distinct, FEW};
use crate::workload::fields::{Fields, Read};
use crate::workload::json::Value;

const MAX_ENTRIES: usize = 4_096;
const MAX_GROUPS: usize = 1_024;
const MAX_VARIABLE: u64 = 1 << 17;
const GRAMMARS: [&str; 5] = ["digits", "hex", "word", "path", "line"];

/// A variable that the host may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    grammar: usize,
    bytes: usize,
}

/// What the host may do to a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    pub stdin: bool,
    pub output: bool,
    pub resize: bool,
    /// Bit N: signal N.
    pub signals: u128,
    pub environment: Vec<Variable>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub command: Command,
    pub doors: Doors,
}

impl Doors {
    pub fn takes_signal(&self, number: i32) -> bool {
        u32::try_from(number)
            .is_ok_and(|number| self.signals.checked_shr(number).is_some_and(|bits| bits & 1 == 1))
    }

    /// Of a process that the host chooses anyway.
    pub fn all() -> Self {
        Self { stdin: true, output: true, resize: true, signals: u128::MAX, environment: Vec::new() }
    }
}

impl Variable {
    /// Whether the host may give it this value.
    pub fn takes(&self, value: &[u8]) -> bool {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
        value.len() <= self.bytes
            && match self.grammar {
                0 => value.iter().all(u8::is_ascii_digit),
                1 => value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
                2 => value.iter().all(word),
                3 => {
                    value.first() == Some(&b'/')
                        && value.iter().all(|byte| word(byte) || *byte == b'/')
                        && value.split(|byte| *byte == b'/').all(|part| part != b"..")
                }
                _ => std::str::from_utf8(value).is_ok_and(|text| !text.contains(char::is_control)),
            }
    }
}

/// Reads a process.
pub fn read(mut fields: Fields) -> Read<Process> {
    fields.spell_out("rlimits");
    let limits = fields.list("rlimits", RLIMITS.len(), |item| limit(item.table("item")?))?;
    let names_of_limits =
        limits.iter().map(|limit| RLIMITS.get(limit.resource as usize).copied().unwrap_or(""));
    if !names_of_limits.is_sorted_by(|one, next| one < next) {
        return Err(fields.fault("rlimits", "not sorted by name, or with duplicates"));
    }
    let uid = fields.id("uid")?;
    let command = Command {
        argv: fields.list("argv", MAX_ENTRIES, |item| item.c_text("item"))?,
        environment: fields.list("environment", MAX_ENTRIES, assignment)?,
        cwd: CString::new(fields.folder("cwd")?).unwrap_or_default(),
        uid,
        gid: fields.id("gid")?,
        groups: fields.rising("groups", MAX_GROUPS, |item| item.id("item"))?,
        capabilities: if fields.spell_out("capabilities") {
            Capabilities::of(capability_set(&mut fields, "capabilities")?, uid)
        } else {
            capabilities(fields.table("capabilities")?)?
        },
        no_new_privileges: fields.flag("no_new_privileges")?,
        filter: calls::read(&mut fields)?,
        limits,
        terminal: fields.flag("terminal")?,
        umask: umask(&mut fields)?,
    };
    if command.argv.first().is_none_or(|program| program.is_empty()) {
        return Err(fields.fault("argv", "no program"));
    }
    if let Some(why) = command.capabilities.fault(command.uid) {
        return Err(fields.fault("capabilities", why));
    }
    let doors = doors(fields.table("host")?)?;
    if doors.resize && !command.terminal {
        return Err(fields.fault("host.resize", "no terminal to resize"));
    }
    let fixed = command.environment.iter().map(|entry| name_of(entry.as_bytes()));
    distinct(
        &fields,
        "environment",
        fixed.chain(doors.environment.iter().map(|variable| variable.name.as_bytes())),
    )?;
    fields.close()?;
    Ok(Process { command, doors })
}

fn capabilities(mut fields: Fields) -> Read<Capabilities> {
    let sets = Capabilities {
        bounding: capability_set(&mut fields, "bounding")?,
        permitted: capability_set(&mut fields, "permitted")?,
        effective: capability_set(&mut fields, "effective")?,
        inheritable: capability_set(&mut fields, "inheritable")?,
        ambient: capability_set(&mut fields, "ambient")?,
    };
    fields.close()?;
    Ok(sets)
}

fn capability_set(fields: &mut Fields, key: &str) -> Read<u64> {
    let names = fields.rising(key, CAPABILITIES.len(), |item| {
        let name = item.text("item")?;
        if CAPABILITIES.contains(&name.as_str()) {
            Ok(name)
        } else {
            Err(item.fault("item", "no capability"))
        }
    })?;
    Ok(capability_mask(&names.iter().map(String::as_str).collect::<Vec<_>>()))
}

fn umask(fields: &mut Fields) -> Read<u32> {
    let text = fields.text("umask")?;
    let octal =
        text.len() == 4 && text.starts_with('0') && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    octal
        .then(|| u32::from_str_radix(&text, 8).ok())
        .flatten()
        .ok_or_else(|| fields.fault("umask", "no umask of four octal digits"))
}

/// What stands before the first `=`.
pub fn name_of(entry: &[u8]) -> &[u8] {
    entry.split(|byte| *byte == b'=').next().unwrap_or_default()
}

fn assignment(item: &mut Fields) -> Read<CString> {
    let entry = item.c_text("item")?;
    match entry.as_bytes().iter().position(|byte| *byte == b'=') {
        Some(1..) => Ok(entry),
        _ => Err(item.fault("item", "not NAME=VALUE")),
    }
}

fn limit(mut fields: Fields) -> Read<Limit> {
    let resource = u32::try_from(fields.choice("name", &RLIMITS)?).unwrap_or(u32::MAX);
    let mut bound = |key: &str| match fields.take(key)? {
        Value::Integer(number) => Ok(number),
        Value::Text(text) if text == "unlimited" => Ok(u64::MAX),
        _ => Err(fields.fault(key, "neither a number nor \"unlimited\"")),
    };
    let (soft, hard) = (bound("soft")?, bound("hard")?);
    if soft > hard {
        return Err(fields.fault("soft", "above the hard limit"));
    }
    fields.close()?;
    Ok(Limit { resource, soft, hard })
}

fn doors(mut fields: Fields) -> Read<Doors> {
    let signals = fields.rising("signals", FEW, |item| item.integer("item", 1, 64))?;
    let doors = Doors {
        resize: fields.flag("resize")?,
        stdin: fields.flag("stdin")?,
        output: fields.flag("output")?,
        signals: signals.iter().fold(0, |bits, number| bits | (1 << number)),
        environment: fields.list("environment", MAX_ENTRIES, |item| variable(item.table("item")?))?,
    };
    fields.close()?;
    Ok(doors)
}

fn variable(mut fields: Fields) -> Read<Variable> {
    let name = fields.text("name")?;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !(1..=128).contains(&name.len())
        || !name.bytes().all(known)
        || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err(fields.fault("name", "no variable's name"));
    }
    let variable = Variable {
        name,
        grammar: fields.choice("allow", &GRAMMARS)?,
        bytes: usize::try_from(fields.integer("bytes", 0, MAX_VARIABLE)?).unwrap_or(0),
    };
    fields.close()?;
    Ok(variable)
}
