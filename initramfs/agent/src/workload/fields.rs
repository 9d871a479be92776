// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! Strict reading of one JSON object: every key is read, none is left, each value is of its kind.

use std::ffi::CString;

use crate::workload::engines;
use crate::workload::json::Value;

/// A table whose keys are taken one by one. `path` is where it stands, for messages.
pub struct Fields {
    items: Vec<(String, Value)>,
    path: String,
}

pub type Read<T> = Result<T, String>;

impl Fields {
    pub fn new(value: Value, path: &str) -> Read<Self> {
        match value {
            Value::Table(items) => Ok(Self { items, path: path.to_owned() }),
            _ => Err(format!("{path}: no object")),
        }
    }

    /// The message for one of its keys.
    pub fn fault(&self, key: &str, what: &str) -> String {
        format!("{}: {what}", self.place(key))
    }

    fn place(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub fn take(&mut self, key: &str) -> Read<Value> {
        let at = self.items.iter().position(|(name, _)| name == key);
        at.map(|at| self.items.swap_remove(at).1).ok_or_else(|| self.fault(key, "missing"))
    }

    /// To be called when every key has been taken.
    pub fn close(self) -> Read<()> {
        match self.items.first() {
            Some((key, _)) => Err(self.fault(&key.chars().take(80).collect::<String>(), "key not known")),
            None => Ok(()),
        }
    }

    pub fn text(&mut self, key: &str) -> Read<String> {
        match self.take(key)? {
            Value::Text(text) if !text.contains('\0') => Ok(text),
            _ => Err(self.fault(key, "no text without NUL")),
        }
    }

    pub fn integer(&mut self, key: &str, low: u64, high: u64) -> Read<u64> {
        match self.take(key)? {
            Value::Integer(number) if (low..=high).contains(&number) => Ok(number),
            _ => Err(self.fault(key, &format!("no whole number from {low} to {high}"))),
        }
    }

    /// A number for a user or group; 2^32-1 means "leave unchanged" to the kernel.
    pub fn id(&mut self, key: &str) -> Read<u32> {
        self.integer(key, 0, u64::from(u32::MAX) - 1).map(|number| u32::try_from(number).unwrap_or(0))
    }

    pub fn flag(&mut self, key: &str) -> Read<bool> {
        match self.take(key)? {
            Value::Flag(flag) => Ok(flag),
            _ => Err(self.fault(key, "neither true nor false")),
        }
    }

    /// Puts an engine's defaults in the place of its name, where one stands at `key`.
    pub fn spell_out(&mut self, key: &str) -> bool {
        let value = self.items.iter_mut().find_map(|(name, value)| (name == key).then_some(value));
        let defaults = match &value {
            Some(Value::Text(name)) => engines::defaults(name, key),
            _ => None,
        };
        match (value, defaults) {
            (Some(value), Some(defaults)) => {
                *value = defaults;
                true
            }
            _ => false,
        }
    }

    /// The place of a text in the list of those that are known.
    pub fn choice(&mut self, key: &str, known: &[&str]) -> Read<usize> {
        let text = self.text(key)?;
        known.iter().position(|one| *one == text).ok_or_else(|| self.fault(key, "value not known"))
    }

    pub fn table(&mut self, key: &str) -> Read<Self> {
        let value = self.take(key)?;
        self.within(key, value)
    }

    /// The table that a value, taken from `key`, must be.
    pub fn within(&self, key: &str, value: Value) -> Read<Self> {
        Self::new(value, &self.place(key))
    }

    /// A list of at most `most`, each read by `make` as the key "item" of a table of its own.
    pub fn list<T>(&mut self, key: &str, most: usize, make: impl Fn(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let items = match self.take(key)? {
            Value::List(items) if items.len() <= most => items,
            _ => return Err(self.fault(key, &format!("no list of at most {most}"))),
        };
        let each = |(number, item)| {
            let path = format!("{}[{number}]", self.place(key));
            make(&mut Self { items: vec![("item".to_owned(), item)], path })
        };
        items.into_iter().enumerate().map(each).collect()
    }

    /// The same, sorted and without duplicates.
    pub fn rising<T: Ord>(
        &mut self,
        key: &str,
        most: usize,
        make: impl Fn(&mut Self) -> Read<T>,
    ) -> Read<Vec<T>> {
        let items = self.list(key, most, make)?;
        if !items.is_sorted_by(|one, next| one < next) {
            return Err(self.fault(key, "not sorted, or with duplicates"));
        }
        Ok(items)
    }

    /// An absolute path without empty components, `.` and `..`.
    pub fn folder(&mut self, key: &str) -> Read<String> {
        let path = self.text(key)?;
        let whole = path == "/"
            || path
                .strip_prefix('/')
                .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")));
        if !whole || path.len() > 4_096 {
            return Err(self.fault(key, "no absolute path without . and .."));
        }
        Ok(path)
    }

    /// A path that something may be mounted on.
    pub fn target(&mut self) -> Read<String> {
        let path = self.folder("target")?;
        let ours = ["/proc", "/sys", "/dev"]
            .iter()
            .any(|one| path.strip_prefix(one).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        if (ours && path != "/dev/shm") || path == "/" {
            return Err(self.fault("target", "is the agent's"));
        }
        Ok(path)
    }

    pub fn c_text(&mut self, key: &str) -> Read<CString> {
        let text = self.text(key)?;
        CString::new(text).map_err(|_| self.fault(key, "no text without NUL"))
    }
}
