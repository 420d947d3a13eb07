//! Flags and environment of `harmony serve` as a process, and what the program says of itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod process;
mod program;

use process::{Running, check_end, harmony};
use program::{HARMONY, run};

#[test]
fn a_script_for_etcd_starts_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [
        "-name=n1",
        "--data-dir=first",
        "-data-dir",
        "data",
        "--listen-client-urls=http://127.0.0.1:0",
        "--snapshot-count=10000",
        "--experimental-initial-corrupt-check=true",
        "--enable-grpc-gateway=false",
        "--log-format=json",
    ];
    let mut command = harmony(dir.path(), &arguments);
    command.envs([
        ("ETCD_NAME", "n2"),
        ("ETCD_MAX_TXN_OPS", "1"),
        ("ETCD_SNAPSHOT_COUNT", "5"),
        ("ETCD_TYPO", "x"),
    ]);
    let server = Running::spawn(command);
    for (part, times) in [
        ("environment variable ETCD_NAME does not count", 1),
        ("unrecognized environment variable ETCD_TYPO", 1),
        ("--snapshot-count has no effect", 1),
        ("--initial-corrupt-check has no effect", 1),
        ("\"name\":\"n1\"", 1),
    ] {
        assert_eq!(server.said.matches(part).count(), times, "{part} in {}", server.said);
    }
    assert!(dir.path().join("data").is_dir(), "the last of a flag that is repeated counts");
    let endpoint = format!("--endpoints={}", server.address);
    let two = "\n\nput a 1\nput b 2\n\n\n";
    let refused = run(HARMONY, [endpoint.as_str(), "txn"], two);
    refused.fails(1, "error: etcdserver: too many operations in txn request");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let end = |arguments: &[&str], variables: &[(&str, &str)]| {
        harmony(dir.path(), arguments).envs(variables.iter().copied()).output().unwrap()
    };
    check_end(
        &end(&["--nmae=x"], &[]),
        2,
        &["unexpected argument '--nmae'", "a similar argument exists: '--name'"],
    );
    check_end(
        &end(&["--discovery=http://h"], &[]),
        2,
        &["--discovery is not supported", "--initial-cluster"],
    );
    check_end(
        &end(&[], &[("ETCD_ELECTION_TIMEOUT", "1s")]),
        2,
        &["ETCD_ELECTION_TIMEOUT: invalid value '1s'"],
    );
    assert!(!dir.path().join("harmony.data").exists(), "nothing was touched");
}

#[test]
fn the_shell_can_complete_commands() {
    for (shell, part) in
        [("bash", "complete -F _harmony"), ("zsh", "#compdef harmony"), ("fish", "complete -c harmony")]
    {
        let said = run(HARMONY, ["completion", shell], "");
        assert!(said.succeeds().contains(part) && said.out.contains("endpoints"), "{shell}");
    }
    let script = run(HARMONY, ["completion", "bash"], "");
    run("bash", ["-n"], script.succeeds()).prints("");
    run(HARMONY, ["completion", "tcl"], "").fails(2, "error: invalid value 'tcl'");
}

#[test]
fn the_version_is_told() {
    let version = env!("CARGO_PKG_VERSION");
    run(HARMONY, ["version"], "").prints(&format!("harmony version: {version}\nAPI version: 3.6\n"));
    run(HARMONY, ["--version"], "").prints(&format!("harmony {version}\n"));
}
