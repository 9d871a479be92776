// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The sev-artifacts authors

//! JSON in one form: RFC 8785 with whole numbers only (docs/workload.md, "Form").
//!
//! What was parsed is written again and compared, so that no two texts mean the same document.

/// No document needs more levels.
const MAX_DEPTH: u32 = 16;
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Flag(bool),
    Integer(u64),
    Text(String),
    List(Vec<Value>),
    /// In the order of the text, which is the order of the keys.
    Table(Vec<(String, Value)>),
}

/// Parses a whole text in canonical form.
pub fn parse(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0).ok_or_else(|| format!("no such JSON at byte {}", reader.at))?;
    let mut again = String::with_capacity(text.len());
    write(&value, &mut again);
    if again != text {
        return Err("not in canonical form".to_owned());
    }
    Ok(value)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// `None` is a fault at `at`. Form that the comparison would find anyway need not be found here.
impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, word: &str) -> Option<()> {
        self.text.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }

    fn value(&mut self, depth: u32) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'{' => self.table(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(Value::Text),
            b't' => self.take("true").map(|()| Value::Flag(true)),
            b'f' => self.take("false").map(|()| Value::Flag(false)),
            _ => self.integer(),
        }
    }

    fn integer(&mut self) -> Option<Value> {
        let rest = self.text.get(self.at..)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = rest.get(..digits)?.parse().ok().filter(|number| *number <= MAX_INTEGER)?;
        self.at += digits;
        Some(Value::Integer(number))
    }

    fn list(&mut self, depth: u32) -> Option<Value> {
        let mut items = Vec::new();
        self.take("[")?;
        if self.take("]").is_some() {
            return Some(Value::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take("]").is_some() {
                return Some(Value::List(items));
            }
            self.take(",")?;
        }
    }

    fn table(&mut self, depth: u32) -> Option<Value> {
        let mut items: Vec<(String, Value)> = Vec::new();
        self.take("{")?;
        if self.take("}").is_some() {
            return Some(Value::Table(items));
        }
        loop {
            let key = self.string()?;
            // Rising without a pause: sorted, and none twice.
            if items.last().is_some_and(|(before, _)| *before >= key) {
                return None;
            }
            self.take(":")?;
            items.push((key, self.value(depth + 1)?));
            if self.take("}").is_some() {
                return Some(Value::Table(items));
            }
            self.take(",")?;
        }
    }

    fn string(&mut self) -> Option<String> {
        self.take("\"")?;
        let mut result = String::new();
        loop {
            let rest = self.text.get(self.at..)?;
            let end = rest.find(['"', '\\'])?;
            result.push_str(rest.get(..end)?);
            self.at += end;
            if self.take("\"").is_some() {
                return Some(result);
            }
            self.at += 1;
            let escape = char::from(self.peek()?);
            self.at += 1;
            result.push(match escape {
                '"' | '\\' => escape,
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let digits = self.text.get(self.at..self.at + 4)?;
                    self.at += 4;
                    char::from_u32(u32::from_str_radix(digits, 16).ok()?)?
                }
                _ => return None,
            });
        }
    }
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Integer(number) => out.push_str(&number.to_string()),
        Value::Text(text) => write_string(text, out),
        Value::List(items) => {
            out.push('[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Table(items) => {
            out.push('{');
            for (number, (key, item)) in items.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write(item, out);
            }
            out.push('}');
        }
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..'\u{20}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push('"');
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_one_form_is_read() {
        let text = "{\"a\":[true,false,0,9007199254740991],\"b\":\"\\b\\t\\n\\f\\r\\u001f\\\"\\\\/\u{7f}€😀\",\"c\":{}}";
        let Value::Table(items) = parse(text.as_bytes()).unwrap() else { unreachable!() };
        assert_eq!(items.len(), 3);
        assert_eq!(
            items.get(1).map(|(_, value)| value.clone()),
            Some(Value::Text("\u{8}\t\n\u{c}\r\u{1f}\"\\/\u{7f}€😀".to_owned()))
        );
    }

    #[test]
    fn every_other_form_is_refused() {
        for text in [
            "",
            " 0",
            "0 ",
            "00",
            "01",
            "-0",
            "-1",
            "0.0",
            "1e1",
            "+1",
            "9007199254740992",
            "99999999999999999999",
            "NaN",
            "null",
            "nul",
            "tru",
            "truee",
            "[",
            "]",
            "[,]",
            "[0,]",
            "[0 ]",
            "[0,,0]",
            "[0][0]",
            "{",
            "{}}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":0,}",
            "{\"a\":0,\"a\":0}",
            "{\"b\":0,\"a\":0}",
            "{\"a\": 0}",
            "{a:0}",
            "{0:0}",
            "\"",
            "\"\\\"",
            "\"\\u\"",
            "\"\\u12\"",
            "\"\\u+123\"",
            "\"\\u0041\"",
            "\"\\u000a\"",
            "\"\\u001F\"",
            "\"\\/\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud83d\\ude00\"",
            "\"\n\"",
            "\"\u{1}\"",
            "\u{feff}0",
            "\"\\u00\u{e9}\"",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| [b"[".repeat(depth), b"]".repeat(depth)].concat();
        assert!(parse(&nested(17)).is_ok());
        assert!(parse(&nested(18)).is_err());
        assert!(parse(&b"[".repeat(1 << 20)).is_err());
    }
}
