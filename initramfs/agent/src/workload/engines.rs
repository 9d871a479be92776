// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! What container engines give a process by default, under the names that a workload document may use in its place.

use crate::workload::json::{self, Value};

/// By engine and key, each as a document has it; of capabilities the bounding set. tools/sev/workload/engines.py says
/// where it is from, and a test there compares the two.
const TABLE: &str = include_str!("engines.json");

/// What the engine of that name has under `key`, where there is one.
pub fn defaults(name: &str, key: &str) -> Option<Value> {
    let engines = json::parse(TABLE.as_bytes()).ok()?;
    inner(inner(engines, name)?, key)
}

fn inner(value: Value, key: &str) -> Option<Value> {
    match value {
        Value::Table(items) => items.into_iter().find_map(|(name, value)| (name == key).then_some(value)),
        _ => None,
    }
}
