//! The two servers as processes, each alone with a fresh directory.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harmony_testkit::wait::{PATIENCE, until};

use crate::process::Running;

/// Starts this server. Passwords cost little, as there are many.
pub(crate) fn harmony(dir: &Path) -> Running {
    let [peer] = free_addresses();
    let url = format!("http://{peer}");
    let cluster = format!("default={url}");
    let listens = ["--listen-peer-urls", &url, "--initial-advertise-peer-urls", &url];
    let arguments = [&listens[..], &["--initial-cluster", &cluster, "--bcrypt-cost", "4"]].concat();
    Running::start(dir, &arguments)
}

/// Of ports that nobody listens on.
fn free_addresses<const N: usize>() -> [String; N] {
    let free = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    free.each_ref().map(|listener| listener.local_addr().unwrap().to_string())
}

/// Where a release of etcd that the list of differences is about lies.
pub(crate) fn find_etcd() -> Option<PathBuf> {
    let Some(program) = std::env::var_os("HARMONY_ETCD").map(PathBuf::from) else {
        eprintln!("SKIPPED: HARMONY_ETCD names no etcd");
        return None;
    };
    let Ok(said) = Command::new(&program).arg("--version").output() else {
        panic!("HARMONY_ETCD: {} does not run", program.display());
    };
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    if said.contains("etcd Version: 3.5.") {
        return Some(program);
    }
    eprintln!("SKIPPED: the list of differences is about etcd 3.5, and this is {said}");
    None
}

/// A real etcd. Killed when dropped.
pub(crate) struct Etcd {
    child: Child,
    pub(crate) address: String,
}

impl Etcd {
    pub(crate) fn start(program: &Path, dir: &Path) -> Self {
        // Another process may take a port meanwhile: then it ends, and others are tried.
        for _ in 0..5 {
            if let Some(etcd) = Self::try_start(program, dir) {
                return etcd;
            }
        }
        panic!("etcd did not start");
    }

    fn try_start(program: &Path, dir: &Path) -> Option<Self> {
        let [client, peer] = free_addresses();
        let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD_")) {
            command.env_remove(name);
        }
        command
            .args(["--data-dir", &dir.join(format!("etcd-{client}")).display().to_string()])
            .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
            .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
            .args(["--initial-cluster", &format!("default={peer_url}"), "--bcrypt-cost", "4"])
            .args(["--log-level", "fatal"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut etcd = Self { child: command.spawn().unwrap(), address: client };
        let served = until("etcd serves", PATIENCE, || {
            if let Some(status) = etcd.child.try_wait()? {
                return Ok(Some(status));
            }
            std::net::TcpStream::connect_timeout(&etcd.address.parse()?, Duration::from_secs(1))?;
            Ok(None)
        });
        matches!(served, Ok(None)).then_some(etcd)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}
