//! Answers as text: the lines that `etcdctl` prints, so that scripts made for it go on working.

use std::io::{self, BufWriter, Write};

use harmony_types::KeyValue;
use serde::Serialize;

use super::ClientError;

/// How a command prints its answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Output {
    /// JSON instead of text.
    pub(crate) json: bool,
    /// Keys and values as `\xNN` in the text.
    pub(crate) hex: bool,
}

/// Which half of a key with its value to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Part {
    /// Key and value, on a line each.
    #[default]
    Both,
    /// The key and, as the server leaves the value out, an empty line.
    Key,
    /// The value.
    Value,
}

impl Output {
    /// Writes a whole answer to standard output, by `text` or as JSON.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub(crate) fn print(
        self,
        json: &impl Serialize,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), ClientError> {
        let mut out = BufWriter::new(io::stdout().lock());
        let written = if self.json {
            serde_json::to_writer(&mut out, json).map_err(io::Error::from).and_then(|()| out.write_all(b"\n"))
        } else {
            text(&mut out)
        };
        written.and_then(|()| out.flush()).map_err(ClientError::output)
    }

    /// Writes key and value, or one of them.
    ///
    /// # Errors
    /// As the writer.
    pub(crate) fn key_value(self, out: &mut dyn Write, kv: &KeyValue, part: Part) -> io::Result<()> {
        if part != Part::Value {
            self.bytes_line(out, &kv.key)?;
        }
        self.bytes_line(out, &kv.value)
    }

    fn bytes_line(self, out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
        if self.hex {
            for byte in bytes {
                write!(out, "\\x{byte:02x}")?;
            }
        } else {
            out.write_all(bytes)?;
        }
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(hex: bool, part: Part, expected: &[u8]) {
        let kv = KeyValue { key: "k".into(), value: vec![0xff, b'v'].into(), ..KeyValue::default() };
        let mut out = Vec::new();
        Output { json: false, hex }.key_value(&mut out, &kv, part).unwrap();
        assert_eq!(out, expected);
    }

    #[test]
    fn bytes_are_printed_as_they_are_or_in_hex() {
        check(false, Part::Both, b"k\n\xffv\n");
        check(false, Part::Value, b"\xffv\n");
        check(true, Part::Both, b"\\x6b\n\\xff\\x76\n");
        check(true, Part::Value, b"\\xff\\x76\n");
    }
}
