//! Ports, bound before anything else is started.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use harmony_node::tls::{Tls, TlsConfig};
use harmony_node::{TlsError, TransportError};

use super::ServeError;
use crate::config::{Config, Url, tls::Side};
use crate::net::entrance::{ClientTls, Entrance};

/// A port that is ours.
pub(super) struct Bound {
    pub(super) socket: TcpListener,
    pub(super) address: SocketAddr,
    pub(super) entrance: Entrance,
}

/// The ports for clients.
pub(super) struct Ports {
    pub(super) client: Vec<Bound>,
    /// Those for HTTP without gRPC.
    pub(super) http: Vec<Bound>,
    /// Those for health and metrics.
    pub(super) metrics: Vec<Bound>,
}

/// Listens for clients.
pub(super) fn clients(config: &Config) -> Result<Ports, ServeError> {
    let tls = match &config.client_tls {
        None => None,
        Some(tls) => Some(client_tls(tls)?),
    };
    Ok(Ports {
        client: bind(&config.listen_client, "listen-client-urls", tls.as_ref())?,
        http: bind(&config.listen_client_http, "listen-client-http-urls", tls.as_ref())?,
        metrics: bind(&config.listen_metrics, "listen-metrics-urls", tls.as_ref())?,
    })
}

fn client_tls(config: &TlsConfig) -> Result<ClientTls, ServeError> {
    // As in etcd, certificates name users only where this flag was given.
    let names_users = config.client_cert_auth;
    match Tls::open(config.clone()) {
        Ok(tls) => Ok(ClientTls { tls: Arc::clone(&tls), names_users }),
        Err(source) => Err(refused_tls(Side::Clients, source)),
    }
}

/// The refusal of a file, with its flag.
fn refused_tls(side: Side, source: TlsError) -> ServeError {
    let flag = match &source {
        TlsError::Read { file, .. } | TlsError::Content { file, .. } => side.flag_of(*file),
        _ => match side {
            Side::Peers => return TransportError::Tls(source).into(),
            Side::Clients => "auto-tls",
        },
    };
    ServeError::Tls { flag, source }
}

/// Where the transport is to listen for peers, with TLS or without.
pub(super) fn peers(urls: &[Url], tls: bool) -> Result<Vec<SocketAddr>, ServeError> {
    let urls = urls.iter().filter(|url| url.is_tls() == tls);
    urls.map(|url| url.resolve().map_err(|source| refusal(url, "listen-peer-urls", source))).collect()
}

/// The transport's refusal, with the flag.
pub(super) fn refused_peer(urls: &[Url], error: TransportError) -> ServeError {
    match error {
        TransportError::Listen { address, source } => {
            match urls.iter().find(|url| url.resolve().is_ok_and(|resolved| resolved == address)) {
                Some(url) => refusal(url, "listen-peer-urls", source),
                None => TransportError::Listen { address, source }.into(),
            }
        }
        TransportError::Tls(source) => refused_tls(Side::Peers, source),
        error => error.into(),
    }
}

/// One port a URL; a URL with and one without TLS may share theirs.
fn bind(urls: &[Url], flag: &'static str, tls: Option<&ClientTls>) -> Result<Vec<Bound>, ServeError> {
    let mut bound: Vec<(&Url, Bound)> = Vec::new();
    for url in urls {
        let shared = bound.iter_mut().find(|(other, _)| {
            other.port() != 0 && other.authority() == url.authority() && other.is_tls() != url.is_tls()
        });
        // Without TLS there is no https:// URL: the configuration was checked.
        match (shared, tls) {
            (Some((_, bound)), Some(tls)) => bound.entrance = Entrance::Both(tls.clone()),
            (_, tls) => {
                let socket = url.resolve().and_then(TcpListener::bind);
                let socket = socket.map_err(|source| refusal(url, flag, source))?;
                let address = socket.local_addr().map_err(|source| refusal(url, flag, source))?;
                let entrance = match tls {
                    Some(tls) if url.is_tls() => Entrance::Tls(tls.clone()),
                    _ => Entrance::Plain,
                };
                bound.push((url, Bound { socket, address, entrance }));
            }
        }
    }
    Ok(bound.into_iter().map(|(_, bound)| bound).collect())
}

fn refusal(url: &Url, flag: &'static str, source: io::Error) -> ServeError {
    let advice = match source.kind() {
        io::ErrorKind::AddrInUse => "stop the process that uses the port, or choose another with",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; choose another with",
        _ => "choose an address of this machine with",
    };
    ServeError::Listen { url: url.clone(), flag, advice, source }
}

#[cfg(test)]
mod tests {
    use harmony_node::TlsIdentity;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn open(texts: &[&str], tls: Option<&ClientTls>) -> Result<Vec<Bound>, ServeError> {
        let urls: Vec<Url> = texts.iter().map(|text| url(text)).collect();
        bind(&urls, "listen-client-urls", tls)
    }

    #[test]
    fn a_port_in_use_is_named_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let used = format!("http://{address}");
        let error = open(&[&used], None).map(drop).unwrap_err().to_string();
        for part in [used.as_str(), "stop the process", "--listen-client-urls"] {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let error = refused_peer(&[url(&used)], TransportError::Listen { address, source }).to_string();
        assert!(error.contains("--listen-peer-urls"), "{error}");
    }

    #[test]
    fn port_0_is_any_port() {
        let bound = open(&["http://127.0.0.1:0"], None).unwrap();
        assert_ne!(bound[0].address.port(), 0);
    }

    #[test]
    fn urls_with_and_without_tls_may_share_a_port() {
        let identity = TlsIdentity::SelfSigned { hosts: vec!["127.0.0.1".to_owned()], valid_years: 1 };
        let tls = client_tls(&TlsConfig::new(identity)).unwrap();
        let apart = open(&["http://127.0.0.1:0", "https://127.0.0.1:0"], Some(&tls)).unwrap();
        assert!(matches!((&apart[0].entrance, &apart[1].entrance), (Entrance::Plain, Entrance::Tls(_))));
        let free = apart[0].address;
        drop(apart);
        let shared = open(&[&format!("https://{free}"), &format!("http://{free}")], Some(&tls)).unwrap();
        assert_eq!(shared.len(), 1);
        assert!(matches!(shared[0].entrance, Entrance::Both(_)));
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = open(&["http://192.0.2.1:0"], None).map(drop).unwrap_err().to_string();
        assert!(error.contains("choose an address of this machine"), "{error}");
    }
}
