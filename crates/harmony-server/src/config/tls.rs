//! TLS between members and for clients, from etcd's flags.

use std::path::PathBuf;

use harmony_node::tls::{AllowedName, CipherSuite, TlsConfig, TlsFile, TlsIdentity, TlsVersion};

use super::{Check, Options, Url};

/// Years that a self-signed certificate is valid, as etcd's.
const VALID_YEARS: u32 = 1;

/// What is spoken inside TLS on the ports for clients.
const CLIENT_PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Other members.
    Peers,
    /// Clients.
    Clients,
}

/// The flags of one side.
struct Names {
    cert: &'static str,
    key: &'static str,
    dial_cert: &'static str,
    dial_key: &'static str,
    cert_auth: &'static str,
    ca: &'static str,
    crl: &'static str,
    cn: &'static str,
    hostname: &'static str,
    auto: &'static str,
}

impl Side {
    const fn names(self) -> Names {
        match self {
            Self::Peers => Names {
                cert: "peer-cert-file",
                key: "peer-key-file",
                dial_cert: "peer-client-cert-file",
                dial_key: "peer-client-key-file",
                cert_auth: "peer-client-cert-auth",
                ca: "peer-trusted-ca-file",
                crl: "peer-crl-file",
                cn: "peer-cert-allowed-cn",
                hostname: "peer-cert-allowed-hostname",
                auto: "peer-auto-tls",
            },
            Self::Clients => Names {
                cert: "cert-file",
                key: "key-file",
                // Nobody dials clients.
                dial_cert: "cert-file",
                dial_key: "key-file",
                cert_auth: "client-cert-auth",
                ca: "trusted-ca-file",
                crl: "client-crl-file",
                cn: "client-cert-allowed-cn",
                hostname: "client-cert-allowed-hostname",
                auto: "auto-tls",
            },
        }
    }

    /// The flag that names a file.
    pub(crate) const fn flag_of(self, file: TlsFile) -> &'static str {
        let names = self.names();
        match file {
            TlsFile::Certificate => names.cert,
            TlsFile::Key => names.key,
            TlsFile::DialCertificate => names.dial_cert,
            TlsFile::DialKey => names.dial_key,
            TlsFile::TrustedCa => names.ca,
            TlsFile::Crl => names.crl,
        }
    }
}

/// What is given for one side.
struct Given<'a> {
    cert: &'a Option<PathBuf>,
    key: &'a Option<PathBuf>,
    dial: Option<(&'a Option<PathBuf>, &'a Option<PathBuf>)>,
    cert_auth: bool,
    ca: &'a Option<PathBuf>,
    crl: &'a Option<PathBuf>,
    cn: &'a Option<String>,
    hostname: &'a Option<String>,
    auto: bool,
}

/// TLS between members; `None` when it is not asked for.
pub(super) fn peers(
    check: &mut Check,
    options: &Options,
    listen: &[Url],
    others: &[&Url],
) -> Option<TlsConfig> {
    let given = Given {
        cert: &options.peer_cert_file,
        key: &options.peer_key_file,
        dial: Some((&options.peer_client_cert_file, &options.peer_client_key_file)),
        cert_auth: options.peer_client_cert_auth == Some(true),
        ca: &options.peer_trusted_ca_file,
        crl: &options.peer_crl_file,
        cn: &options.peer_cert_allowed_cn,
        hostname: &options.peer_cert_allowed_hostname,
        auto: options.peer_auto_tls == Some(true),
    };
    let needs_tls = listen.iter().chain(others.iter().copied()).find(|url| url.is_tls());
    let config = of(check, options, Side::Peers, &given, listen, needs_tls);
    let from_files = given.cert.is_some() && given.key.is_some();
    if needs_tls.is_some() && from_files && given.ca.is_none() {
        check.mistake(
            Side::Peers.names().ca,
            "is missing: without it members cannot tell each other from strangers".to_owned(),
        );
    }
    config
}

/// TLS for clients; `None` when it is not asked for.
pub(super) fn clients(check: &mut Check, options: &Options, listen: &[Url]) -> Option<TlsConfig> {
    let given = Given {
        cert: &options.cert_file,
        key: &options.key_file,
        dial: None,
        cert_auth: options.client_cert_auth == Some(true),
        ca: &options.trusted_ca_file,
        crl: &options.client_crl_file,
        cn: &options.client_cert_allowed_cn,
        hostname: &options.client_cert_allowed_hostname,
        auto: options.auto_tls == Some(true),
    };
    let needs_tls = listen.iter().find(|url| url.is_tls());
    let config = of(check, options, Side::Clients, &given, listen, needs_tls)?;
    for url in listen.iter().filter(|url| !url.is_tls()) {
        check.notice(format!("{url} is served without TLS: the certificates count for https:// URLs"));
    }
    Some(TlsConfig { protocols: CLIENT_PROTOCOLS.to_vec(), ..config })
}

fn of(
    check: &mut Check,
    options: &Options,
    side: Side,
    given: &Given<'_>,
    listen: &[Url],
    needs_tls: Option<&Url>,
) -> Option<TlsConfig> {
    let names = side.names();
    let before = check.mistakes.len();
    let identity = identity(check, options, &names, given, listen);
    if let (Some(url), None, true) = (needs_tls, &identity, check.mistakes.len() == before) {
        let (key, ca, auto) = (names.key, names.ca, names.auto);
        let with = match side {
            Side::Peers => format!("--{key} and --{ca}"),
            Side::Clients => format!("--{key}"),
        };
        check
            .mistake(names.cert, format!("is missing and {url} needs TLS: give it with {with}, or --{auto}"));
    }
    let allowed = allowed(check, &names, given);
    let (min_version, max_version) = versions(check, options, side);
    let cipher_suites = cipher_suites(check, options, side, min_version);
    if given.ca.is_none() {
        let allowed_flags = format!("{} or --{}", names.cn, names.hostname);
        let what = [
            (given.cert_auth, names.cert_auth),
            (given.crl.is_some(), names.crl),
            (!allowed.is_empty(), &allowed_flags),
        ];
        for (_, flag) in what.into_iter().filter(|(is_set, _)| *is_set) {
            check.mistake(flag, format!("says nothing without --{}", names.ca));
        }
    } else if matches!(identity, Some(TlsIdentity::SelfSigned { .. })) {
        let (ca, cert, key) = (names.ca, names.cert, names.key);
        let reason = format!(
            "cannot be used with --{ca}: nobody has signed such certificates; give --{cert} and --{key} instead"
        );
        check.mistake(names.auto, reason);
    }
    Some(TlsConfig {
        trusted_ca_file: given.ca.clone(),
        client_cert_auth: given.cert_auth,
        crl_file: given.crl.clone(),
        allowed,
        min_version,
        max_version,
        cipher_suites,
        ..TlsConfig::new(identity?)
    })
}

fn identity(
    check: &mut Check,
    options: &Options,
    names: &Names,
    given: &Given<'_>,
    listen: &[Url],
) -> Option<TlsIdentity> {
    let mut pair = |cert: (&Option<PathBuf>, &str), key: (&Option<PathBuf>, &str)| match (cert.0, key.0) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        (Some(_), None) => {
            check.mistake(key.1, format!("is missing: --{} needs it", cert.1));
            None
        }
        (None, Some(_)) => {
            check.mistake(cert.1, format!("is missing: --{} needs it", key.1));
            None
        }
    };
    let own = pair((given.cert, names.cert), (given.key, names.key));
    let dial_with = given.dial.and_then(|(cert, key)| pair((cert, names.dial_cert), (key, names.dial_key)));
    match own {
        // As in etcd, files win over a certificate of one's own making.
        Some((cert_file, key_file)) => Some(TlsIdentity::Files { cert_file, key_file, dial_with }),
        None if given.auto => Some(TlsIdentity::SelfSigned {
            hosts: listen.iter().map(|url| url.bare_host().to_owned()).collect(),
            valid_years: options.self_signed_cert_validity.unwrap_or(VALID_YEARS),
        }),
        None => None,
    }
}

/// The parts of a list separated by commas.
fn parts(text: Option<&String>) -> Vec<String> {
    let parts = text.into_iter().flat_map(|text| text.split(','));
    parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn allowed(check: &mut Check, names: &Names, given: &Given<'_>) -> Vec<AllowedName> {
    let mut allowed: Vec<AllowedName> =
        parts(given.cn.as_ref()).into_iter().map(AllowedName::CommonName).collect();
    let hosts = parts(given.hostname.as_ref()).into_iter().map(AllowedName::Hostname);
    if !allowed.is_empty() && given.hostname.is_some() {
        check.mistake(names.hostname, format!("cannot be used with --{}: leave one of them out", names.cn));
    }
    allowed.extend(hosts);
    allowed
}

/// Versions and suites count for both sides; their mistakes are told once, with that of the members.
fn versions(check: &mut Check, options: &Options, side: Side) -> (TlsVersion, TlsVersion) {
    let mut mistake = |flag: &str, text: String| {
        if side == Side::Peers {
            check.mistake(flag, text);
        }
    };
    let mut version = |flag: &str, given: &Option<String>, default: TlsVersion| match given.as_deref() {
        None | Some("") => default,
        Some(text) => TlsVersion::parse(text).unwrap_or_else(|| {
            mistake(flag, format!("is {text:?}: use TLS1.2 or TLS1.3"));
            default
        }),
    };
    let min = version("tls-min-version", &options.tls_min_version, TlsVersion::V12);
    let max = version("tls-max-version", &options.tls_max_version, TlsVersion::V13);
    if max < min {
        mistake("tls-max-version", "is older than --tls-min-version".to_owned());
    }
    (min, max)
}

fn cipher_suites(check: &mut Check, options: &Options, side: Side, min: TlsVersion) -> Vec<CipherSuite> {
    const FLAG: &str = "cipher-suites";
    let given = parts(options.cipher_suites.as_ref());
    let (known, others): (Vec<_>, Vec<_>) =
        given.iter().map(|name| CipherSuite::parse(name).ok_or(name)).partition(Result::is_ok);
    let known: Vec<CipherSuite> = known.into_iter().flatten().collect();
    if side == Side::Clients {
        return known;
    }
    let mut left_out = false;
    for name in others.into_iter().filter_map(Result::err) {
        if is_weak(name) {
            left_out = true;
            check.notice(format!("--{FLAG}: {name} is too weak and left out"));
        } else if !is_of_tls_1_3(name) {
            check.mistake(FLAG, format!("names {name:?}: use {}", CipherSuite::names().join(", ")));
        }
    }
    if left_out && known.is_empty() {
        check.mistake(FLAG, format!("names none that is safe: use {}", CipherSuite::names().join(", ")));
    }
    if !known.is_empty() && min == TlsVersion::V13 {
        check.mistake(FLAG, "cannot be chosen when only TLS1.3 is spoken: leave it out".to_owned());
    }
    known
}

/// Suites that Go knows by name and nobody should use: without forward secrecy, or of broken ciphers and modes.
fn is_weak(name: &str) -> bool {
    name.starts_with("TLS_RSA_WITH_") || ["_CBC_", "_RC4_", "_3DES_"].iter().any(|part| name.contains(part))
}

/// Those are always on.
fn is_of_tls_1_3(name: &str) -> bool {
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"].contains(&name)
}
