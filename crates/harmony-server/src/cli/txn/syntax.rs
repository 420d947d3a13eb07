//! `etcdctl`'s text form of a transaction: three blocks of lines, each ended by an empty line.
//!
//! | block | line |
//! | --- | --- |
//! | comparisons | `target("key") op "value"`; the value of a numeric target may stand without quotes |
//! | success | `put`, `get` or `del` with the options of those commands |
//! | failure | the same |
//!
//! A block that is missing at the end is empty.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

use clap::Parser;

use super::super::del::DelOptions;
use super::super::get::GetOptions;
use super::super::put::{PutOptions, parse_lease};
use super::words;
use crate::client::ClientError;
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::{Compare, RequestOp, TxnRequest};

/// Why a text is no transaction, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// From 1.
    line: usize,
    reason: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// Reads a transaction.
///
/// # Errors
/// The first line that makes no sense, and why.
pub(crate) fn parse(text: &str) -> Result<TxnRequest, SyntaxError> {
    let mut request = TxnRequest::default();
    let mut block = 0;
    for (number, line) in text.lines().enumerate() {
        let at = |reason| SyntaxError { line: number + 1, reason };
        let line = line.trim();
        match (line.is_empty(), block) {
            (true, _) => block += 1,
            (false, 0) => request.compare.push(compare(line).map_err(at)?),
            (false, 1) => request.success.push(operation(line).map_err(at)?),
            (false, 2) => request.failure.push(operation(line).map_err(at)?),
            (false, _) => return Err(at("a transaction has three blocks, this is a fourth".to_owned())),
        }
    }
    Ok(request)
}

/// Reads `target("key") op "value"`.
fn compare(line: &str) -> Result<Compare, String> {
    let (target, rest) = line
        .split_once('(')
        .ok_or_else(|| format!("expected target(\"key\") op \"value\", found `{line}`"))?;
    let (key, rest) = words::unquote(rest.trim_start())?;
    let rest = rest
        .trim_start()
        .strip_prefix(')')
        .ok_or_else(|| format!("expected `)` behind the key, found `{rest}`"))?;
    let (result, rest) = comparison(rest.trim_start())?;
    let (target, union) = value(target.trim(), rest.trim_start())?;
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: bytes::Bytes::new(),
        target_union: Some(union),
    })
}

fn comparison(text: &str) -> Result<(CompareResult, &str), String> {
    let operators = [
        ("!=", CompareResult::NotEqual),
        ("=", CompareResult::Equal),
        ("<", CompareResult::Less),
        (">", CompareResult::Greater),
    ];
    operators
        .into_iter()
        .find_map(|(sign, result)| text.strip_prefix(sign).map(|rest| (result, rest)))
        .ok_or_else(|| format!("expected one of = != < > behind the key, found `{text}`"))
}

/// Reads the right side of a comparison as its target wants it.
fn value(target: &str, text: &str) -> Result<(CompareTarget, TargetUnion), String> {
    let word = || {
        let mut words = words::split(text)?;
        match (words.pop(), words.is_empty()) {
            (Some(word), true) => Ok(word),
            _ => Err(format!("expected one value, found `{text}`")),
        }
    };
    let number = |read: fn(&str) -> Option<i64>, kind: &str| {
        let word = word()?;
        let word = String::from_utf8_lossy(&word);
        read(&word).ok_or_else(|| format!("{target} is compared with {kind}, not `{word}`"))
    };
    let decimal = |word: &str| word.parse().ok();
    match target {
        "mod" | "m" => {
            let revision = number(decimal, "a revision")?;
            Ok((CompareTarget::Mod, TargetUnion::ModRevision(revision)))
        }
        "create" | "c" => {
            let revision = number(decimal, "a revision")?;
            Ok((CompareTarget::Create, TargetUnion::CreateRevision(revision)))
        }
        "version" | "ver" => {
            let version = number(decimal, "a number")?;
            Ok((CompareTarget::Version, TargetUnion::Version(version)))
        }
        "lease" => {
            let lease = number(|word| parse_lease(word).ok(), "a lease id in hexadecimal")?;
            Ok((CompareTarget::Lease, TargetUnion::Lease(lease)))
        }
        "value" | "val" => {
            let (value, rest) = words::unquote(text)?;
            match rest {
                "" => Ok((CompareTarget::Value, TargetUnion::Value(value.into()))),
                rest => Err(format!("expected one value, found `{}` behind it", rest.trim())),
            }
        }
        other => Err(format!("unknown target `{other}`, expected mod, create, version, value or lease")),
    }
}

/// One line of the second or third block.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
enum Line {
    Put(PutOptions),
    Get(GetOptions),
    Del(DelOptions),
}

/// Reads `put`, `get` or `del` with options.
fn operation(line: &str) -> Result<RequestOp, String> {
    let words = words::split(line)?.into_iter().map(OsString::from_vec);
    let request = match Line::try_parse_from(words).map_err(|error| first_line(&error))? {
        Line::Put(put) => {
            let needs_value = || Err(ClientError::Usage("put needs a key and a value".to_owned()));
            Request::RequestPut(put.into_request(needs_value).map_err(|error| error.to_string())?)
        }
        Line::Get(get) => Request::RequestRange(get.into_request()),
        Line::Del(del) => Request::RequestDeleteRange(del.into_request()),
    };
    Ok(RequestOp { request: Some(request) })
}

/// The argument parser's message without its usage text, as one line.
fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let message = text.split("\n\n").next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(message);
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};

    fn compare_of(target: CompareTarget, result: CompareResult, union: TargetUnion) -> Compare {
        Compare {
            result: result.into(),
            target: target.into(),
            key: "k".into(),
            range_end: bytes::Bytes::new(),
            target_union: Some(union),
        }
    }

    #[test]
    fn every_target_and_comparison_is_read() {
        let text = "mod(\"k\") > \"0\"\nm(\"k\") > 0\ncreate(\"k\") = \"-1\"\nversion( \"k\" )!=\"7\"\n\
                    value(\"k\") < \"a \\\"b\\\"\"\nlease(\"k\") = \"1f\"\n";
        use CompareResult::{Equal, Greater, Less, NotEqual};
        use CompareTarget::{Create, Lease, Mod, Value, Version};
        assert_eq!(
            parse(text).unwrap().compare,
            [
                compare_of(Mod, Greater, TargetUnion::ModRevision(0)),
                compare_of(Mod, Greater, TargetUnion::ModRevision(0)),
                compare_of(Create, Equal, TargetUnion::CreateRevision(-1)),
                compare_of(Version, NotEqual, TargetUnion::Version(7)),
                compare_of(Value, Less, TargetUnion::Value("a \"b\"".into())),
                compare_of(Lease, Equal, TargetUnion::Lease(0x1f)),
            ]
        );
    }

    #[test]
    fn operations_take_the_options_of_the_commands() {
        let text =
            "\nput k \"a b\" --prev-kv\ndel k --prefix\n\nget k --keys-only --limit 3 --consistency s\n";
        let request = parse(text).unwrap();
        let put = PutRequest { key: "k".into(), value: "a b".into(), prev_kv: true, ..PutRequest::default() };
        let del = DeleteRangeRequest { key: "k".into(), range_end: "l".into(), prev_kv: false };
        let get = RangeRequest {
            key: "k".into(),
            limit: 3,
            keys_only: true,
            serializable: true,
            ..RangeRequest::default()
        };
        let op = |request| RequestOp { request: Some(request) };
        assert_eq!(request.success, [op(Request::RequestPut(put)), op(Request::RequestDeleteRange(del))]);
        assert_eq!(request.failure, [op(Request::RequestRange(get))]);
    }

    #[test]
    fn missing_blocks_are_empty() {
        assert_eq!(parse("").unwrap(), TxnRequest::default());
        assert_eq!(parse("\n\n\n").unwrap(), TxnRequest::default());
        assert_eq!(parse("mod(\"k\") = \"3\"").unwrap().compare.len(), 1);
    }

    #[track_caller]
    fn refused(text: &str, message: &str) {
        assert_eq!(parse(text).unwrap_err().to_string(), message);
    }

    #[test]
    fn a_wrong_comparison_names_its_line() {
        refused("\n\n\nget k", "line 4: a transaction has three blocks, this is a fourth");
        refused("mod(\"k\") = \"1\"\nmod", "line 2: expected target(\"key\") op \"value\", found `mod`");
        refused("mod(k) = \"1\"", "line 1: expected a quoted text at `k) = \"1\"`");
        refused("mod(\"k\" = \"1\"", "line 1: expected `)` behind the key, found ` = \"1\"`");
        refused("mod(\"k = 1", "line 1: missing closing \"");
        refused("mod(\"k\") ~ \"1\"", "line 1: expected one of = != < > behind the key, found `~ \"1\"`");
        refused("mod(\"k\") == \"1\"", "line 1: expected one value, found `= \"1\"`");
        refused("mod(\"k\") = \"1", "line 1: missing closing \"");
        refused("mod(\"k\") = 1 2", "line 1: expected one value, found `1 2`");
        refused("mod(\"k\") =", "line 1: expected one value, found ``");
        refused("version(\"k\") = \"x\"", "line 1: version is compared with a number, not `x`");
        refused(
            "lease(\"k\") = \"xyz\"",
            "line 1: lease is compared with a lease id in hexadecimal, not `xyz`",
        );
        refused("value(\"k\") = 1", "line 1: expected a quoted text at `1`");
        refused("value(\"k\") = \"1\" 2", "line 1: expected one value, found `2` behind it");
        refused(
            "size(\"k\") = \"1\"",
            "line 1: unknown target `size`, expected mod, create, version, value or lease",
        );
    }

    #[test]
    fn a_wrong_operation_names_its_line() {
        refused("\nput k\n", "line 2: put needs a key and a value");
        refused("\nput k v --ignore-value", "line 2: --ignore-value keeps the value: give the key alone");
        refused("\nget k\nfoo k", "line 3: unrecognized subcommand 'foo'");
        refused("\nget", "line 2: the following required arguments were not provided: <KEY>");
        refused("\n\nget k --foo", "line 3: unexpected argument '--foo' found");
        refused("\nput \"k", "line 2: missing closing \"");
        refused("\nhelp", "line 2: unrecognized subcommand 'help'");
    }
}
