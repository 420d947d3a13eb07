//! The command line without a server: what is refused, with which words and which exit code.

mod program;

use std::net::TcpListener;

use program::{HARMONY, harmony, run};

/// An address that nobody listens on.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address").to_string()
}

#[test]
fn wrong_command_lines_exit_with_2_and_say_what_was_meant() {
    let check = |args: &str, words: &[&str]| {
        let said = harmony(args);
        said.fails(2, "error: ");
        for word in words {
            assert!(said.err.contains(word), "{args}: expected {word:?} in {:?}", said.err);
        }
    };
    check("gett k", &["unrecognized subcommand 'gett'", "a similar subcommand exists: 'get'"]);
    check(
        "get k --prefxi",
        &["unexpected argument '--prefxi' found", "a similar argument exists: '--prefix'"],
    );
    check("get", &["<KEY>"]);
    check("get a b c", &["unexpected argument 'c' found"]);
    check("get a b --prefix", &["'[RANGE_END]' cannot be used with '--prefix'"]);
    check("get a --prefix --from-key", &["'--prefix' cannot be used with '--from-key'"]);
    check("get a --count-only --keys-only", &["cannot be used with '--keys-only'"]);
    check("get a --order up", &["invalid value 'up' for '--order <ORDER>'", "ASCEND, DESCEND"]);
    check("get a --sort-by size", &["invalid value 'size'", "KEY, VERSION, CREATE, MODIFY, VALUE"]);
    check("get a --consistency x", &["invalid value 'x' for '--consistency", "l, s"]);
    check("get a --rev x", &["invalid value 'x' for '--rev"]);
    check("put", &["<KEY>"]);
    check("put k v --lease xyz", &["a lease id is a hexadecimal number"]);
    check("put k v --lease 1 --ignore-lease", &["cannot be used with"]);
    check("put k v --ignore-value", &["--ignore-value keeps the value: give the key alone"]);
    check("put k -v", &["unexpected argument '-v' found", "to pass '-v' as a value, use '-- -v'"]);
    check("del", &["<KEY>"]);
    check("lease grant x", &["invalid value 'x' for '<TTL>'"]);
    check("lease revoke zz", &["a lease id is a hexadecimal number"]);
    check("lock", &["<NAME>"]);
    check("lease list -w fields", &["invalid value 'fields' for '--write-out <FORMAT>'", "simple, json"]);
    check("elect e", &["<VALUE>"]);
    check("get k --command-timeout 5", &["\"5\" is no duration, expected one like 500ms, 5s, 1m"]);
    check("get k --endpoints localhost", &["endpoint \"localhost\": expected host:port"]);
    check("get k --endpoints https://a:1 --cert c", &["--cert needs --key"]);
    check("--cacert c serve", &["--cacert is an option of clients, not of serve"]);
    check("--json serve", &["--json is an option of clients, not of serve"]);
    check("bench put --key-size 5", &["--key-size for 10000 keys must be at least 11"]);
    check("bench put --total 0", &["invalid value '0' for '--total"]);
    check("bench range --range-size 11 --keys 10", &["--range-size 11 is more than all 10 keys"]);
    check("bench put --pid 4294967295", &["--pid 4294967295: "]);
}

#[test]
fn help_and_version_exit_with_0() {
    for args in ["--help", "help", "get --help", "bench put --help", "txn --help"] {
        assert!(harmony(args).succeeds().contains("Usage: harmony"), "{args}");
    }
    // Without a command there is nothing to do: help, but no success.
    harmony("").fails(2, "HarmonyDB: a replicated, linearizable, transactional key-value database");
    harmony("bench").fails(2, "Measure an endpoint");
    harmony("--version").prints(&format!("harmony {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_transaction_that_cannot_be_read_names_its_line_and_is_not_sent() {
    // Sent, it would say that nobody answers, and exit with 1.
    let address = nobody();
    let check = |input: &str, message: &str| {
        let said = run(HARMONY, ["txn", "--endpoints", &address], input);
        said.fails(2, &format!("error: {message}\n"));
    };
    check(
        "mod(\"k\") > \"0\"\nsize(\"k\") = \"1\"\n\n\n\n",
        "line 2: unknown target `size`, expected mod, create, version, value or lease",
    );
    check("mod(\"k\") ~ \"0\"\n\n\n\n", "line 1: expected one of = != < > behind the key, found `~ \"0\"`");
    check("\nput k\n\n\n", "line 2: put needs a key and a value");
    check(
        "\n\nget k --limit x\n\n",
        "line 3: invalid value 'x' for '--limit <LIMIT>': invalid digit found in string",
    );
    check("\nput k \"v\n\n\n", "line 2: missing closing \"");
}

#[test]
fn an_endpoint_that_does_not_answer_is_named() {
    let (first, second) = (nobody(), nobody());
    let both = format!("{first},http://{second}");
    for command in ["put k v", "get k", "del k", "members", "bench put --clients 1 --total 1"] {
        let said = harmony(&format!("{command} --endpoints {first} --dial-timeout 10s"));
        said.fails(1, &format!("error: no endpoint answers: {first}: Connection refused"));
    }
    for command in ["put k v", "get k"] {
        let said = harmony(&format!("--endpoints {both} {command}"));
        said.fails(1, &format!("error: no endpoint answers: {first}: Connection refused"));
        assert!(said.err.contains(&format!("; {second}: Connection refused")), "{}", said.err);
        assert_eq!(said.err.lines().count(), 1);
    }
}

#[test]
fn status_shows_an_endpoint_that_does_not_answer() {
    let address = nobody();
    let said = harmony(&format!("status --endpoints {address}"));
    assert_eq!(said.code, Some(1));
    let row = said.out.lines().nth(3).unwrap();
    assert!(row.starts_with(&format!("│ {address} │")) && row.contains("Connection refused"), "{}", said.out);
    let said = harmony(&format!("status --endpoints {address} --json"));
    assert_eq!(said.code, Some(1));
    assert!(said.out.starts_with(&format!("[{{\"Endpoint\":\"{address}\",\"Error\":\"")), "{}", said.out);
}

#[test]
fn a_server_that_never_answers_is_given_up_on() {
    // Connections are accepted by the system and never read.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let said = harmony(&format!("put k v --endpoints {address} --command-timeout 50ms"));
    said.fails(
        1,
        &format!("error: {address}: no answer within 50ms (it may have been applied all the same)\n"),
    );
    let said = harmony(&format!("get k --endpoints {address} --command-timeout 50ms"));
    said.fails(1, &format!("error: {address}: no answer within 50ms\n"));
}
