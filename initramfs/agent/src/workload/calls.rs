// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! What a workload document says of the system calls that a process may make.

use crate::process::command::Filter;
use crate::process::filter::{ALLOW, ERROR};
use crate::process::rules::{Argument, Rule, Rules, OPERATORS};
use crate::workload::fields::{Fields, Read};
use crate::workload::json::Value;

const MAX_RULES: usize = 1_024;
const MAX_CALL: u64 = 1_023;
const MAX_ERROR: u64 = 4_095;
/// A call costs 2, and 9 more for each argument: the kernel takes 4,096 instructions.
const MAX_COST: usize = 4_000;

/// What the kernel does, by name; include/uapi/linux/seccomp.h.
const ACTIONS: [(&str, u32); 4] =
    [("allow", ALLOW), ("kill", 0x8000_0000), ("log", 0x7ffc_0000), ("trap", 0x0003_0000)];

/// The key `seccomp` of a process.
pub fn read(fields: &mut Fields) -> Read<Filter> {
    fields.spell_out("seccomp");
    let value = fields.take("seccomp")?;
    match &value {
        Value::Text(text) if text == "none" => Ok(Filter::None),
        Value::Text(text) if text == "default" => Ok(Filter::Usual),
        Value::Table(_) => rules(fields.within("seccomp", value)?).map(Filter::Spelt),
        _ => Err(fields.fault("seccomp", "value not known")),
    }
}

fn rules(mut fields: Fields) -> Read<Rules> {
    let found = Rules {
        default: action(&mut fields, "default")?,
        rules: fields.list("rules", MAX_RULES, |item| rule(item.table("item")?))?,
    };
    let cost: usize = found.rules.iter().map(|rule| rule.calls.len() * (2 + 9 * rule.arguments.len())).sum();
    if cost > MAX_COST {
        return Err(fields.fault("rules", "more than the kernel takes"));
    }
    fields.close()?;
    Ok(found)
}

fn action(fields: &mut Fields, key: &str) -> Read<u32> {
    match fields.take(key)? {
        Value::Integer(number) if number <= MAX_ERROR => Some(ERROR | u32::try_from(number).unwrap_or(0)),
        Value::Text(text) => ACTIONS.iter().find(|(name, _)| *name == text).map(|(_, action)| *action),
        _ => None,
    }
    .ok_or_else(|| fields.fault(key, "no action"))
}

fn rule(mut fields: Fields) -> Read<Rule> {
    let calls = fields.rising("calls", MAX_RULES, |item| item.integer("item", 0, MAX_CALL))?;
    let rule = Rule {
        calls: calls.into_iter().filter_map(|call| u32::try_from(call).ok()).collect(),
        arguments: fields.list("arguments", 6, |item| argument(item.table("item")?))?,
        action: action(&mut fields, "action")?,
    };
    if rule.calls.is_empty() {
        return Err(fields.fault("calls", "is empty"));
    }
    fields.close()?;
    Ok(rule)
}

fn argument(mut fields: Fields) -> Read<Argument> {
    let argument = Argument {
        index: u32::try_from(fields.integer("index", 0, 5)?).unwrap_or(0),
        mask: word(&mut fields, "mask")?,
        operator: fields.choice("operator", &OPERATORS)?,
        value: word(&mut fields, "value")?,
    };
    fields.close()?;
    Ok(argument)
}

/// 64 bits in 16 digits: more than a number of a document holds.
fn word(fields: &mut Fields, key: &str) -> Read<u64> {
    let text = fields.text(key)?;
    let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    digits
        .then(|| u64::from_str_radix(&text, 16).ok())
        .flatten()
        .ok_or_else(|| fields.fault(key, "not 16 lower-case hexadecimal digits"))
}
