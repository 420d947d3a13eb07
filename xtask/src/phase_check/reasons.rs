//! Every crate from outside that one of ours names has its line of why in the document on dependencies.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::Metadata;

/// Crates from outside, and which of ours name them (short names: `wal` for `harmony-wal`).
type Users = BTreeMap<String, BTreeSet<String>>;

/// Rows that are missing, stale, or name other users than there are, as sentences.
pub(super) fn check(document: &str, metadata: &Metadata) -> Vec<String> {
    let (written, real) = (rows(document), users(metadata));
    let mut wrong = Vec::new();
    for (dependency, by) in &real {
        let by = join(by);
        match written.get(dependency).map(join) {
            None => wrong.push(format!("`{dependency}` has no row; {by} uses it")),
            Some(row) if row != by => wrong.push(format!("`{dependency}`: the row says {row}, used by {by}")),
            Some(_) => {}
        }
    }
    let stale = written.keys().filter(|dependency| !real.contains_key(*dependency));
    wrong.extend(stale.map(|dependency| format!("`{dependency}` has a row and no user")));
    wrong
}

fn users(metadata: &Metadata) -> Users {
    let ours: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let mut users = Users::new();
    for package in &metadata.packages {
        for dependency in
            package.dependencies.iter().filter(|dependency| !ours.contains(dependency.name.as_str()))
        {
            users.entry(dependency.name.clone()).or_default().insert(short(&package.name));
        }
    }
    users
}

/// Rows of the form ``| `name` | users | why |`` whose why is not empty.
fn rows(document: &str) -> Users {
    let mut rows = Users::new();
    for line in document.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, by, why, ""] = cells[..] else { continue };
        if let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'))
            && !why.is_empty()
        {
            rows.entry(name.to_owned()).or_default().extend(by.split(',').map(|user| user.trim().to_owned()));
        }
    }
    rows
}

fn short(package: &str) -> String {
    package.strip_prefix("harmony-").unwrap_or(package).to_owned()
}

fn join(users: &BTreeSet<String>) -> String {
    users.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase_check::edges::tests::made_up;

    fn wrong(document: &str) -> Vec<String> {
        let edges = ["harmony-types -> bytes", "harmony-wal -> bytes dev", "harmony-wal -> harmony-types"];
        check(document, &made_up(&edges))
    }

    #[test]
    fn a_row_with_all_users_and_a_reason_passes() {
        let document =
            "# Text\n\n| crate | used by | why |\n| --- | --- | --- |\n| `bytes` | wal, types | shared |\n";
        assert_eq!(wrong(document), Vec::<String>::new());
    }

    #[test]
    fn a_missing_a_stale_and_a_wrong_row_are_named() {
        assert_eq!(wrong(""), ["`bytes` has no row; types, wal uses it"]);
        assert_eq!(wrong("| `bytes` | types, wal | |"), ["`bytes` has no row; types, wal uses it"]);
        assert_eq!(wrong("| `bytes` | types | why |"), ["`bytes`: the row says types, used by types, wal"]);
        let stale = wrong("| `bytes` | types, wal | why |\n| `rand` | wal | why |");
        assert_eq!(stale, ["`rand` has a row and no user"]);
    }
}
