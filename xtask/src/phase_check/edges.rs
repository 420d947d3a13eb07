//! Which crate may name which.

use cargo_metadata::{Dependency, DependencyKind, Metadata};

use super::PHASES;

/// Crates from outside that only some of ours may name. `harmony-types` does no I/O, so it has no runtime either.
const RESERVED: [(&str, &[&str]); 7] = [
    ("raft", &["harmony-node"]),
    ("raft-proto", &["harmony-node"]),
    ("axum", &["harmony-server"]),
    ("tonic", &["harmony-server"]),
    ("tonic-prost", &["harmony-server"]),
    ("tonic-prost-build", &["xtask"]),
    ("tokio", &["harmony-node", "harmony-testkit", "harmony-server"]),
];

/// All edges that break a rule, as sentences.
pub(super) fn check(metadata: &Metadata) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if place(name).is_none() && name != "xtask" {
            wrong.push(format!("{name}: no place in the stack; give it one in xtask's PHASES"));
        }
        wrong.extend(package.dependencies.iter().filter_map(|dependency| check_edge(name, dependency)));
    }
    wrong
}

fn check_edge(from: &str, dependency: &Dependency) -> Option<String> {
    let to = dependency.name.as_str();
    let reserved = RESERVED.iter().find(|(name, _)| *name == to);
    if let Some((_, allowed)) = reserved
        && !allowed.contains(&from)
    {
        return Some(format!("{from} names {to}: only {} may", allowed.join(", ")));
    }
    if to == "xtask" {
        return Some(format!("{from} names xtask: nothing may"));
    }
    let right = place(to)?;
    // Its fakes serve the tests of every layer, its own too.
    if dependency.kind == DependencyKind::Development && right == 0 {
        return None;
    }
    match place(from) {
        None => Some(format!("{from} names {to}: development tasks must build when the stack does not")),
        Some(left) if left <= right => Some(format!("{from} names {to}: only crates before it in the stack")),
        Some(_) if dependency.req.to_string() == "*" => {
            Some(format!("{from} names {to} by path alone: it could not be published"))
        }
        Some(_) => None,
    }
}

fn place(name: &str) -> Option<usize> {
    PHASES.iter().position(|phase| *phase == name)
}

#[cfg(test)]
pub(super) mod tests {
    use std::fmt::Write as _;

    use cargo_metadata::MetadataCommand;

    use super::*;

    /// A workspace from lines `from -> to [kind] [requirement]`; kind is `normal`, `dev` or `build`.
    pub(in crate::phase_check) fn made_up(edges: &[&str]) -> Metadata {
        let mut packages: Vec<(String, Vec<String>)> = Vec::new();
        for edge in edges {
            let (from, rest) = edge.split_once(" -> ").unwrap();
            let mut words = rest.split(' ');
            let (to, kind) = (words.next().unwrap(), words.next().unwrap_or("normal"));
            let requirement = words.next().unwrap_or("^0.1");
            let kind = if kind == "normal" { "null".to_owned() } else { format!("{kind:?}") };
            let dependency = format!(
                r#"{{"name": "{to}", "source": null, "req": "{requirement}", "kind": {kind}, "rename": null,
                    "optional": false, "uses_default_features": true, "features": [], "target": null,
                    "registry": null}}"#
            );
            match packages.iter_mut().find(|(name, _)| name == from) {
                Some((_, dependencies)) => dependencies.push(dependency),
                None => packages.push((from.to_owned(), vec![dependency])),
            }
        }
        let mut json = String::new();
        for (name, dependencies) in packages {
            let comma = if json.is_empty() { "" } else { "," };
            write!(
                json,
                r#"{comma}{{"name": "{name}", "version": "0.1.0", "id": "{name}", "source": null,
                    "dependencies": [{}], "targets": [], "features": {{}}, "manifest_path": "/w/{name}/Cargo.toml",
                    "edition": "2024"}}"#,
                dependencies.join(",")
            )
            .unwrap();
        }
        let json = format!(
            r#"{{"packages": [{json}], "workspace_members": [], "resolve": null, "target_directory": "/w/target",
                "version": 1, "workspace_root": "/w"}}"#
        );
        MetadataCommand::parse(json).unwrap()
    }

    #[test]
    fn the_stack_as_designed_passes() {
        let metadata = made_up(&[
            "harmony-types -> bytes",
            "harmony-types -> harmony-types dev *",
            "harmony-wal -> harmony-types",
            "harmony-wal -> harmony-types dev *",
            "harmony-storage -> harmony-wal",
            "harmony-node -> raft",
            "harmony-node -> harmony-storage",
            "harmony-server -> tonic",
            "harmony-server -> axum",
            "harmony-server -> harmony-node",
            "harmony-server -> harmony-testkit dev",
            "xtask -> tonic-prost-build",
        ]);
        assert_eq!(check(&metadata), Vec::<String>::new());
    }

    #[test]
    fn each_wrong_edge_is_named() {
        for (edge, message) in [
            (
                "harmony-wal -> harmony-storage",
                "harmony-wal names harmony-storage: only crates before it in the stack",
            ),
            (
                "harmony-wal -> harmony-wal",
                "harmony-wal names harmony-wal: only crates before it in the stack",
            ),
            (
                "harmony-wal -> harmony-storage dev",
                "harmony-wal names harmony-storage: only crates before it in the stack",
            ),
            (
                "harmony-types -> harmony-wal build",
                "harmony-types names harmony-wal: only crates before it in the stack",
            ),
            (
                "harmony-testkit -> harmony-server dev",
                "harmony-testkit names harmony-server: only crates before it in the stack",
            ),
            ("harmony-storage -> raft", "harmony-storage names raft: only harmony-node may"),
            ("harmony-storage -> raft-proto dev", "harmony-storage names raft-proto: only harmony-node may"),
            ("harmony-node -> tonic", "harmony-node names tonic: only harmony-server may"),
            ("harmony-testkit -> axum", "harmony-testkit names axum: only harmony-server may"),
            (
                "harmony-server -> tonic-prost-build build",
                "harmony-server names tonic-prost-build: only xtask may",
            ),
            (
                "harmony-wal -> tokio",
                "harmony-wal names tokio: only harmony-node, harmony-testkit, harmony-server may",
            ),
            (
                "harmony-wal -> harmony-types normal *",
                "harmony-wal names harmony-types by path alone: it could not be published",
            ),
            (
                "xtask -> harmony-types",
                "xtask names harmony-types: development tasks must build when the stack does not",
            ),
            ("harmony-server -> xtask", "harmony-server names xtask: nothing may"),
            ("harmony-extra -> bytes", "harmony-extra: no place in the stack; give it one in xtask's PHASES"),
        ] {
            assert_eq!(check(&made_up(&[edge])), [message]);
        }
    }
}
