//! TLS for clients, over real processes: `etcdctl`, which we did not write, and our own client.
//!
//! Without `etcdctl` in the path most of these tests say so and are skipped, except where `CI` is set: there they fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod certificates;
mod process;
mod program;

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use certificates::{Authority, Wanted};
use harmony_node::tls::{DialConfig, Dialer, Trusted};
use program::{HARMONY, Said, etcdctl_is_there, run};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A directory with an authority, a server's certificate and a client's.
struct Files {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path(), "ours");
        for name in ["server", "client"] {
            authority.issue(name);
        }
        authority.revoke(&[999]);
        Self { dir, authority }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Flags of a server that asks for certificates, and more.
    fn flags(&self, more: &[&str]) -> Vec<String> {
        let mut flags = vec![
            format!("--cert-file={}", self.path("server.crt")),
            format!("--key-file={}", self.path("server.key")),
            format!("--trusted-ca-file={}", self.path("ours.ca")),
            format!("--client-crl-file={}", self.path("crl")),
        ];
        flags.extend(more.iter().map(ToString::to_string));
        flags
    }

    fn start(&self, more: &[&str]) -> process::Running {
        let flags = self.flags(more);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        process::Running::start_at(self.dir.path(), "https://127.0.0.1:0", &flags)
    }

    /// What a client says about TLS: whom it trusts, and its certificate or none.
    fn client(&self, ca: &str, certificate: &str) -> Vec<String> {
        let mut flags = vec![format!("--cacert={}", self.path(ca))];
        if !certificate.is_empty() {
            flags.push(format!("--cert={}", self.path(&format!("{certificate}.crt"))));
            flags.push(format!("--key={}", self.path(&format!("{certificate}.key"))));
        }
        flags
    }

    /// Runs a client with arguments that have no spaces in them.
    fn run_client(&self, program: &str, address: &str, certificate: &str, args: &str) -> Said {
        let mut all = vec![
            format!("--endpoints=https://{address}"),
            "--command-timeout=2s".to_owned(),
            "--dial-timeout=2s".to_owned(),
        ];
        all.extend(self.client("ours.ca", certificate));
        all.extend(args.split_whitespace().map(str::to_owned));
        run(program, all, "")
    }

    fn etcdctl(&self, address: &str, certificate: &str, args: &str) -> Said {
        self.run_client("etcdctl", address, certificate, args)
    }

    /// The status line and body of an HTTP/1.1 request over TLS.
    fn http(&self, address: &str, certificate: &str, request: &str, body: &str) -> (String, String) {
        let config = DialConfig {
            trusted: Trusted::File(self.path("ours.ca").into()),
            identity: Some((
                self.path(&format!("{certificate}.crt")).into(),
                self.path(&format!("{certificate}.key")).into(),
            )),
            protocols: vec!["http/1.1"],
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let mut stream = Dialer::open(&config).unwrap().connect("127.0.0.1", stream).await.unwrap();
            let length = body.len();
            let text = format!(
                "{request} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.lines().next().unwrap().to_owned(), body.to_owned())
        })
    }
}

#[track_caller]
fn check_refused(said: &Said, part: &str) {
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains(part), "{part:?} is not in {:?}", said.err);
}

#[test]
fn who_is_let_in_and_who_is_not() {
    if !etcdctl_is_there() {
        return;
    }
    let files = Files::new();
    let mut server = files.start(&["--client-cert-allowed-cn=client,other"]);
    let address = server.address.clone();
    files.etcdctl(&address, "client", "put a 1").prints("OK\n");
    files.run_client(HARMONY, &address, "client", "get a").prints("a\n1\n");

    let stranger = Authority::new(files.dir.path(), "stranger");
    stranger.issue("of-stranger");
    let wanted = |file, common_name, serial, is_expired| Wanted { file, common_name, serial, is_expired };
    files.authority.issue_as(&wanted("expired", "client", 2, true));
    files.authority.issue_as(&wanted("revoked", "client", 3, false));
    files.authority.issue_as(&wanted("wrong-name", "mallory", 4, false));
    files.authority.revoke(&[3]);
    for (certificate, reason) in [
        ("", "a client was refused in the TLS handshake\",\"peer\":\"127.0.0.1"),
        ("", "peer sent no certificates"),
        ("of-stranger", "UnknownIssuer"),
        ("expired", "certificate expired"),
        ("revoked", "Revoked"),
        ("wrong-name", "a certificate has none of the names that are allowed"),
    ] {
        let said = files.run_client(HARMONY, &address, certificate, "get a");
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{certificate}: {said:?}");
        server.says(&[reason]);
        let said = files.etcdctl(&address, certificate, "get a");
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{certificate}: {said:?}");
        server.says(&[reason]);
    }
    // The other way round: a server that the client does not trust.
    for program in ["etcdctl", HARMONY] {
        let mut args = vec![format!("--endpoints=https://{address}"), "--command-timeout=2s".to_owned()];
        args.extend(files.client("stranger.ca", "client"));
        args.extend(["get", "a"].map(str::to_owned));
        // `etcdctl` says no more than that time is up.
        let reason = if program == HARMONY { "invalid peer certificate" } else { "" };
        check_refused(&run(program, args.clone(), ""), reason);
        args.push("--insecure-skip-tls-verify".to_owned());
        run(program, args, "").prints("a\n1\n");
    }
    // Plain HTTP at a port for TLS.
    TcpStream::connect(&address).unwrap().write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
    server.says(&["does not speak TLS"]);
    files.etcdctl(&address, "client", "get a").prints("a\n1\n");
}

#[test]
fn everything_on_the_port_is_behind_tls_and_other_ports_may_be_plain() {
    let files = Files::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let metrics_url = format!("--listen-metrics-urls=http://{metrics}");
    let flags = files.flags(&[&metrics_url]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    // The same port, with TLS and without.
    let urls = format!("{url},https://{free}");
    let _server = process::Running::start_at(files.dir.path(), &urls, &flags);
    let https = free.to_string();
    files.run_client(HARMONY, &https, "client", "put a 1").succeeds();
    run(HARMONY, ["--endpoints", &url, "get", "a"], "").prints("a\n1\n");
    let ok = "HTTP/1.1 200 OK";
    let (status, body) = files.http(&https, "client", "GET /health", "");
    assert_eq!((status.as_str(), body.as_str()), (ok, "{\"health\":\"true\",\"reason\":\"\"}"));
    let (status, body) = files.http(&https, "client", "GET /metrics", "");
    assert!(status == ok && body.contains("etcd_server_has_leader 1"), "{body}");
    let (status, body) = files.http(&https, "client", "POST /v3/kv/range", "{\"key\":\"YQ==\"}");
    assert!(status == ok && body.contains("\"value\":\"MQ==\""), "{body}");
    let plain = |request: &str| {
        let mut stream = TcpStream::connect(metrics).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        std::io::read_to_string(stream).unwrap()
    };
    assert!(plain("GET /metrics").contains("etcd_server_has_leader 1"));
    assert!(plain("GET /health").contains("\"true\""));
    assert!(plain("POST /v3/kv/range").starts_with("HTTP/1.1 404"));
    assert!(plain("POST /etcdserverpb.KV/Range").starts_with("HTTP/1.1 404"));
}

#[test]
fn http_may_have_ports_of_its_own() {
    let files = Files::new();
    let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let server = files.start(&[&format!("--listen-client-http-urls=https://{http}")]);
    files.run_client(HARMONY, &server.address, "client", "put a 1").succeeds();
    assert_eq!(files.http(&http, "client", "GET /health", "").0, "HTTP/1.1 200 OK");
    assert_eq!(files.http(&http, "client", "POST /v3/kv/range", "{\"key\":\"YQ==\"}").0, "HTTP/1.1 200 OK");
    assert_eq!(files.http(&server.address, "client", "GET /health", "").0, "HTTP/1.1 404 Not Found");
    check_refused(&files.run_client(HARMONY, &http, "client", "get a"), "");
}

#[test]
fn replaced_files_count_for_new_connections_and_old_ones_go_on() {
    if !etcdctl_is_there() {
        return;
    }
    let files = Files::new();
    let server = files.start(&[]);
    let address = server.address.clone();
    let mut args = vec![format!("--endpoints=https://{address}")];
    args.extend(files.client("ours.ca", "client"));
    args.extend(["watch", "a", "--rev=1"].map(str::to_owned));
    files.etcdctl(&address, "client", "put a 1").prints("OK\n");
    let mut watch = program::Running::start("etcdctl", args);
    watch.prints("PUT\na\n1\n");

    let newer = Authority::new(files.dir.path(), "newer");
    let take_over = |from: &str, to: &str| fs::rename(files.path(from), files.path(to)).unwrap();
    fs::copy(files.path("client.crt"), files.path("old.crt")).unwrap();
    fs::copy(files.path("client.key"), files.path("old.key")).unwrap();
    newer.issue("server");
    newer.issue("client");
    newer.revoke(&[999]);
    take_over("newer.ca", "ours.ca");
    assert_ne!(files.etcdctl(&address, "old", "put a 2").code, Some(0));
    files.etcdctl(&address, "client", "put a 3").prints("OK\n");
    watch.until("3\n");
}

#[test]
fn a_handshake_that_stalls_holds_up_nobody() {
    if !etcdctl_is_there() {
        return;
    }
    let files = Files::new();
    let server = files.start(&[]);
    let mut stalled: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(&server.address).unwrap()).collect();
    // Half of them have begun: the head of a record, and not what it announces.
    for stream in stalled.iter_mut().step_by(2) {
        stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    }
    files.etcdctl(&server.address, "client", "put a 1").prints("OK\n");
    files.etcdctl(&server.address, "client", "get a").prints("a\n1\n");
    drop(stalled);
}

#[test]
fn certificates_name_users() {
    if !etcdctl_is_there() {
        return;
    }
    let files = Files::new();
    for name in ["root", "alice", "nobody"] {
        files.authority.issue(name);
    }
    let server = files.start(&["--client-cert-auth", "--bcrypt-cost=4"]);
    let address = &server.address;
    for args in [
        "user add root:secret",
        "user grant-role root root",
        "user add alice --no-password",
        "role add reads",
        "role grant-permission reads read a",
        "user grant-role alice reads",
        "put a 1",
        "auth enable",
    ] {
        if args == "user grant-role root root" {
            files.etcdctl(address, "client", "role add root").succeeds();
        }
        files.etcdctl(address, "client", args).succeeds();
    }
    files.etcdctl(address, "root", "put b 2").prints("OK\n");
    files.etcdctl(address, "alice", "get a").prints("a\n1\n");
    check_refused(&files.etcdctl(address, "alice", "put a 3"), "etcdserver: permission denied");
    check_refused(&files.etcdctl(address, "alice", "get b"), "etcdserver: permission denied");
    // The certificate is good, and there is no such user.
    check_refused(&files.etcdctl(address, "nobody", "get a"), "etcdserver: ");
    // A login counts for more.
    files.etcdctl(address, "alice", "--user=root:secret get b").prints("b\n2\n");
    files.run_client(HARMONY, address, "alice", "--user=root:secret get b").prints("b\n2\n");
    files.run_client(HARMONY, address, "alice", "get a").prints("a\n1\n");
    // As in etcd, nobody is logged in so at the JSON gateway.
    let (status, body) = files.http(address, "root", "POST /v3/kv/range", "{\"key\":\"YQ==\"}");
    assert_eq!(status, "HTTP/1.1 400 Bad Request");
    assert!(body.contains("etcdserver: user name is empty"), "{body}");
}

#[test]
fn without_client_cert_auth_a_certificate_names_nobody() {
    if !etcdctl_is_there() {
        return;
    }
    let files = Files::new();
    files.authority.issue("root");
    let server = files.start(&["--bcrypt-cost=4"]);
    let address = &server.address;
    for args in ["user add root:secret", "role add root", "user grant-role root root", "auth enable"] {
        files.etcdctl(address, "root", args).succeeds();
    }
    check_refused(&files.etcdctl(address, "root", "get a"), "etcdserver: user name is empty");
}

#[test]
fn a_certificate_of_its_own_making_hides_what_is_said() {
    if !etcdctl_is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let server = process::Running::start_at(dir.path(), "https://127.0.0.1:0", &["--auto-tls"]);
    let endpoint = format!("--endpoints={}", server.address);
    for program in ["etcdctl", HARMONY] {
        let any = ["--insecure-skip-tls-verify", "--insecure-transport=false"];
        run(program, [&[endpoint.as_str()], &any[..], &["put", "a", "1"]].concat(), "").succeeds();
        let checks = ["--insecure-transport=false", "--command-timeout=2s", "get", "a"];
        let said = run(program, [&[endpoint.as_str()], &checks[..]].concat(), "");
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
    }
}

#[test]
fn three_nodes_with_tls_for_members_and_clients() {
    if !etcdctl_is_there() {
        return;
    }
    let files = Files::new();
    files.authority.issue("root");
    let ports: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let peers: Vec<String> =
        ports.iter().map(|port| format!("https://{}", port.local_addr().unwrap())).collect();
    drop(ports);
    let cluster = format!("--initial-cluster=a={},b={},c={}", peers[0], peers[1], peers[2]);
    let servers: Vec<process::Running> = ["a", "b", "c"]
        .iter()
        .zip(&peers)
        .map(|(name, peer)| {
            let (server, key, ca) =
                (files.path("server.crt"), files.path("server.key"), files.path("ours.ca"));
            files.start(&[
                &format!("--name={name}"),
                &format!("--data-dir={}", files.path(name)),
                &cluster,
                &format!("--initial-advertise-peer-urls={peer}"),
                &format!("--peer-cert-file={server}"),
                &format!("--peer-key-file={key}"),
                &format!("--peer-trusted-ca-file={ca}"),
                "--peer-client-cert-auth",
                "--client-cert-auth",
                "--bcrypt-cost=4",
            ])
        })
        .collect();
    for args in ["user add root:secret", "role add root", "user grant-role root root", "auth enable"] {
        files.etcdctl(&servers[0].address, "client", args).succeeds();
    }
    for (turn, server) in servers.iter().enumerate() {
        files.etcdctl(&server.address, "root", &format!("put key {turn}")).prints("OK\n");
        let next = &servers[(turn + 1) % 3].address;
        files.etcdctl(next, "root", "get key --print-value-only").prints(&format!("{turn}\n"));
        check_refused(&files.etcdctl(next, "client", "get key"), "etcdserver: ");
    }
    let all: Vec<String> = servers.iter().map(|server| format!("https://{}", server.address)).collect();
    let mut args = vec![format!("--endpoints={}", all.join(","))];
    args.extend(files.client("ours.ca", "root"));
    args.extend(["endpoint", "health"].map(str::to_owned));
    let said = run("etcdctl", args, "");
    assert_eq!((said.code, said.err.matches("is healthy").count()), (Some(0), 3), "{said:?}");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_flag() {
    let files = Files::new();
    files.authority.issue("other");
    let end = |flags: &[&str]| {
        let url = ["--listen-client-urls", "https://127.0.0.1:0"];
        process::harmony(Path::new(&files.path("")), &[&url[..], flags].concat()).output().unwrap()
    };
    let (cert, key) = (files.path("server.crt"), files.path("other.key"));
    process::check_end(
        &end(&["--cert-file", &cert, "--key-file", &key]),
        1,
        &["--key-file", "other.key", "not the key of the first certificate"],
    );
    process::check_end(&end(&[]), 2, &["--cert-file is missing", "or --auto-tls"]);
}
