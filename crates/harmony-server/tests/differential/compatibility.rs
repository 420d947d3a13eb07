//! `docs/compatibility.md`: every RPC and field, what came of it in these tests, and every difference. `HARMONY_BLESS=1` writes it
//! anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use prost_reflect::{Kind, MessageDescriptor, MethodDescriptor};

use crate::coverage::Coverage;
use crate::differences::DIFFERENCES;
use crate::schema;

const HEAD: &str = "# Compatibility

Every RPC and field of etcd's API and what this server makes of it. A test writes this page out of what its calls met
(`HARMONY_BLESS=1 cargo test -p harmony-server --test differential`), so nothing here is from memory. Where
`HARMONY_ETCD` names an etcd 3.5, the same calls, and random ones, go to it as well, and each answer is compared; the list of
[differences](#differences) is not complete yet. Flags are in [flags.md](flags.md), which is written in the same way; limits of what is promised in [guarantees.md](guarantees.md).
";

pub(crate) fn check(coverage: &Coverage) {
    let text = text(coverage);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    if std::env::var_os("HARMONY_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    // The package alone has no documents.
    let Ok(found) = std::fs::read_to_string(&path) else { return };
    let changed = text.lines().zip(found.lines()).find(|(new, old)| new != old);
    assert!(
        found == text,
        "docs/compatibility.md is old: HARMONY_BLESS=1 cargo test -p harmony-server --test differential; {changed:?}"
    );
}

fn text(coverage: &Coverage) -> String {
    let mut text = HEAD.to_owned();
    differences(&mut text);
    rpcs(&mut text, coverage);
    let mut done = BTreeSet::new();
    for service in schema::pool().services() {
        writeln!(text, "\n## Messages of {}\n", service.name()).unwrap();
        text.push_str("| field | |\n| --- | --- |\n");
        for method in service.methods() {
            for (message, seen, word) in
                [(method.input(), &coverage.set, "requests"), (method.output(), &coverage.carried, "answers")]
            {
                fields(&mut text, &message, seen, word, &mut done);
            }
        }
    }
    text
}

fn differences(text: &mut String) {
    text.push_str("\n## Differences\n\nBetween etcd 3.5 and this server, which follows 3.6. `~`: something of the server's own; `*`: whatever it is.\n\n");
    text.push_str("| RPC | part of the answer | etcd | here | why |\n| --- | --- | --- | --- | --- |\n");
    for row in DIFFERENCES {
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let (etcd, harmony) = (cell(row.etcd), cell(row.harmony));
        writeln!(text, "| {} | `{}` | {etcd} | {harmony} | {} |", row.rpc, row.part, cell(row.why)).unwrap();
    }
}

fn rpcs(text: &mut String, coverage: &Coverage) {
    text.push_str("\n## RPCs\n\n| RPC | JSON | |\n| --- | --- | --- |\n");
    for method in schema::pool().services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let name = name(&method);
        let state = match coverage.calls.get(name.as_str()) {
            Some(calls) if 0 < calls.answered => "supported",
            Some(_) => "only refused",
            None => "untested",
        };
        let differs = DIFFERENCES.iter().any(|row| row.rpc == name);
        let differs = if differs { ", [differs](#differences)" } else { "" };
        let path = schema::path(&method).map_or_else(|| "none".to_owned(), |path| format!("`{path}`"));
        writeln!(text, "| {name} | {path} | {state}{differs} |").unwrap();
    }
}

fn name(method: &MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().name(), method.name())
}

/// The fields of a message and of those in it. A message that stands in requests and in answers has a row for each.
fn fields(
    text: &mut String,
    message: &MessageDescriptor,
    seen: &BTreeSet<String>,
    word: &'static str,
    done: &mut BTreeSet<(String, &'static str)>,
) {
    if !done.insert((message.full_name().to_owned(), word)) {
        return;
    }
    let mut inner = Vec::new();
    for field in message.fields() {
        let is_seen = seen.contains(&format!("{}.{}", message.full_name(), field.name()));
        let state = if is_seen { format!("in {word}") } else { format!("untested in {word}") };
        writeln!(text, "| {}.{} | {state} |", message.full_name(), field.name()).unwrap();
        if let Kind::Message(message) = field.kind() {
            inner.push(message);
        }
    }
    inner.iter().for_each(|message| fields(text, message, seen, word, done));
}
