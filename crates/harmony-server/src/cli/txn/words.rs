//! A line cut into words, with quotes as `etcdctl` has them.

/// Cuts a line at its spaces. `"..."` is one word with the escapes of [`unquote`]; `'...'` is one word as it is.
///
/// # Errors
/// Says what is wrong with a quoted word.
pub(super) fn split(line: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let (word, after) = match first {
            '"' => unquote(rest)?,
            '\'' => {
                let (word, after) = rest[1..].split_once('\'').ok_or("missing closing '")?;
                (word.as_bytes().to_vec(), after)
            }
            _ => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (rest.as_bytes()[..end].to_vec(), &rest[end..])
            }
        };
        if after.chars().next().is_some_and(|next| !next.is_whitespace()) {
            return Err(format!("expected a space before `{after}`"));
        }
        words.push(word);
        rest = after.trim_start();
    }
    Ok(words)
}

/// Reads the quoted word that a text starts with; returns its bytes and the text behind it.
///
/// Escapes: `\\ \" \' \a \b \f \n \r \t \v`, `\xNN` (a byte), `\NNN` (a byte in octal), `\uNNNN`, `\UNNNNNNNN`.
///
/// # Errors
/// Says what is wrong.
pub(super) fn unquote(text: &str) -> Result<(Vec<u8>, &str), String> {
    let mut rest = text.strip_prefix('"').ok_or_else(|| format!("expected a quoted text at `{text}`"))?;
    let mut bytes = Vec::new();
    loop {
        let at = rest.find(['"', '\\']).ok_or("missing closing \"")?;
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        if rest[at..].starts_with('"') {
            return Ok((bytes, &rest[at + 1..]));
        }
        rest = escape(&rest[at + 1..], &mut bytes)?;
    }
}

/// Adds what the escape means that `text` starts with (behind its backslash); returns the text behind it.
fn escape<'a>(text: &'a str, bytes: &mut Vec<u8>) -> Result<&'a str, String> {
    let kind = text.chars().next().ok_or("missing closing \"")?;
    let rest = &text[kind.len_utf8()..];
    let simple = match kind {
        '\\' | '"' | '\'' => u8::try_from(kind).expect("ASCII"),
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        'x' => return number(rest, 2, 16).and_then(|(value, rest)| push_byte(value, rest, bytes)),
        '0'..='7' => return number(text, 3, 8).and_then(|(value, rest)| push_byte(value, rest, bytes)),
        'u' => return number(rest, 4, 16).and_then(|(value, rest)| push_char(value, rest, bytes)),
        'U' => return number(rest, 8, 16).and_then(|(value, rest)| push_char(value, rest, bytes)),
        other => return Err(format!("unknown escape \\{other}")),
    };
    bytes.push(simple);
    Ok(rest)
}

fn number(text: &str, digits: usize, radix: u32) -> Result<(u32, &str), String> {
    let wrong = || format!("an escape needs {digits} digits at `{text}`");
    let (number, rest) = text.split_at_checked(digits).ok_or_else(wrong)?;
    if !number.chars().all(|digit| digit.is_digit(radix)) {
        return Err(wrong());
    }
    Ok((u32::from_str_radix(number, radix).map_err(|_| wrong())?, rest))
}

fn push_byte<'a>(value: u32, rest: &'a str, bytes: &mut Vec<u8>) -> Result<&'a str, String> {
    bytes.push(u8::try_from(value).map_err(|_| format!("an escape is a byte, not {value}"))?);
    Ok(rest)
}

fn push_char<'a>(value: u32, rest: &'a str, bytes: &mut Vec<u8>) -> Result<&'a str, String> {
    let value = char::from_u32(value).ok_or_else(|| format!("{value:#x} is no character"))?;
    bytes.extend_from_slice(value.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[&[u8]]) {
        assert_eq!(split(line).unwrap(), expected);
    }

    #[test]
    fn words_end_at_spaces_outside_of_quotes() {
        check("", &[]);
        check("  put a\tb ", &[b"put", b"a", b"b"]);
        check(r#"put "a b" 'c "d"'"#, &[b"put", b"a b", b"c \"d\""]);
        check(r#"put "" ''"#, &[b"put", b"", b""]);
    }

    #[test]
    fn escapes_are_bytes_or_characters() {
        check(r#""\\\"\'\n\t\r\a\b\f\v""#, &[b"\\\"'\n\t\r\x07\x08\x0c\x0b"]);
        check(r#""\xff\x00\101\u00e9\U0001F600""#, &[&[0xff, 0, b'A', 0xc3, 0xa9, 0xf0, 0x9f, 0x98, 0x80]]);
    }

    #[test]
    fn a_broken_word_says_how() {
        let check = |line: &str, reason: &str| assert_eq!(split(line).unwrap_err(), reason, "{line}");
        check("\"a", "missing closing \"");
        check("\"a\\", "missing closing \"");
        check("'a", "missing closing '");
        check("\"a\"b", "expected a space before `b`");
        check(r#""\q""#, "unknown escape \\q");
        check(r#""\xg0""#, "an escape needs 2 digits at `g0\"`");
        check(r#""\x1é""#, "an escape needs 2 digits at `1é\"`");
        check(r#""\777""#, "an escape is a byte, not 511");
        check(r#""\ud800""#, "0xd800 is no character");
    }
}
