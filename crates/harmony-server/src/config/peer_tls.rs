//! TLS between members, from etcd's flags.

use std::path::PathBuf;

use harmony_node::tls::{AllowedName, TlsConfig, TlsFile, TlsIdentity, TlsVersion};

use super::{Check, Options, Url};

/// Years that a self-signed certificate is valid, as etcd's.
const VALID_YEARS: u32 = 1;

/// Reads the flags; `None` when TLS is not asked for.
pub(super) fn of(check: &mut Check, options: &Options, listen: &[Url], others: &[&Url]) -> Option<TlsConfig> {
    let before = check.mistakes.len();
    let identity = identity(check, options, listen);
    let needs_tls = listen.iter().chain(others.iter().copied()).find(|url| url.is_tls());
    if let (Some(url), None, true) = (needs_tls, &identity, check.mistakes.len() == before) {
        check.mistake(
            "peer-cert-file",
            format!(
                "is missing and {url} needs TLS: give it with --peer-key-file and --peer-trusted-ca-file, or --peer-auto-tls"
            ),
        );
    }
    let allowed = allowed(check, options);
    let (min_version, max_version) = versions(check, options);
    if options.peer_trusted_ca_file.is_none() {
        let what = [
            (options.peer_client_cert_auth == Some(true), "peer-client-cert-auth"),
            (options.peer_crl_file.is_some(), "peer-crl-file"),
            (!allowed.is_empty(), "peer-cert-allowed-cn or --peer-cert-allowed-hostname"),
        ];
        for (_, flag) in what.into_iter().filter(|(is_set, _)| *is_set) {
            check.mistake(flag, "says nothing without --peer-trusted-ca-file".to_owned());
        }
        let from_files = matches!(identity, Some(TlsIdentity::Files { .. }));
        if needs_tls.is_some() && from_files {
            check.mistake(
                "peer-trusted-ca-file",
                "is missing: without it members cannot tell each other from strangers".to_owned(),
            );
        }
    } else if matches!(identity, Some(TlsIdentity::SelfSigned { .. })) {
        let reason = "cannot be used with --peer-trusted-ca-file: nobody has signed such certificates; give --peer-cert-file \
                      and --peer-key-file instead";
        check.mistake("peer-auto-tls", reason.to_owned());
    }
    Some(TlsConfig {
        trusted_ca_file: options.peer_trusted_ca_file.clone(),
        client_cert_auth: options.peer_client_cert_auth.unwrap_or(false),
        crl_file: options.peer_crl_file.clone(),
        allowed,
        min_version,
        max_version,
        ..TlsConfig::new(identity?)
    })
}

fn identity(check: &mut Check, options: &Options, listen: &[Url]) -> Option<TlsIdentity> {
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
    let own = pair((&options.peer_cert_file, "peer-cert-file"), (&options.peer_key_file, "peer-key-file"));
    let dial_with = pair(
        (&options.peer_client_cert_file, "peer-client-cert-file"),
        (&options.peer_client_key_file, "peer-client-key-file"),
    );
    match own {
        // As in etcd, files win over a certificate of one's own making.
        Some((cert_file, key_file)) => Some(TlsIdentity::Files { cert_file, key_file, dial_with }),
        None if options.peer_auto_tls == Some(true) => Some(TlsIdentity::SelfSigned {
            hosts: listen.iter().map(|url| url.bare_host().to_owned()).collect(),
            valid_years: options.self_signed_cert_validity.unwrap_or(VALID_YEARS),
        }),
        None => None,
    }
}

fn allowed(check: &mut Check, options: &Options) -> Vec<AllowedName> {
    fn names(text: &Option<String>) -> impl Iterator<Item = String> {
        let names = text.iter().flat_map(|text| text.split(','));
        names
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
            .into_iter()
    }
    let mut allowed: Vec<AllowedName> =
        names(&options.peer_cert_allowed_cn).map(AllowedName::CommonName).collect();
    let hosts = names(&options.peer_cert_allowed_hostname).map(AllowedName::Hostname);
    if !allowed.is_empty() && options.peer_cert_allowed_hostname.is_some() {
        check.mistake(
            "peer-cert-allowed-hostname",
            "cannot be used with --peer-cert-allowed-cn: leave one of them out".to_owned(),
        );
    }
    allowed.extend(hosts);
    allowed
}

fn versions(check: &mut Check, options: &Options) -> (TlsVersion, TlsVersion) {
    let mut version = |flag: &str, given: &Option<String>, default: TlsVersion| match given.as_deref() {
        None | Some("") => default,
        Some(text) => TlsVersion::parse(text).unwrap_or_else(|| {
            check.mistake(flag, format!("is {text:?}: use TLS1.2 or TLS1.3"));
            default
        }),
    };
    let min = version("tls-min-version", &options.tls_min_version, TlsVersion::V12);
    let max = version("tls-max-version", &options.tls_max_version, TlsVersion::V13);
    if max < min {
        check.mistake("tls-max-version", "is older than --tls-min-version".to_owned());
    }
    (min, max)
}

/// The flag that names a file.
pub(crate) fn flag_of(file: TlsFile) -> &'static str {
    match file {
        TlsFile::Certificate => "peer-cert-file",
        TlsFile::Key => "peer-key-file",
        TlsFile::DialCertificate => "peer-client-cert-file",
        TlsFile::DialKey => "peer-client-key-file",
        TlsFile::TrustedCa => "peer-trusted-ca-file",
        TlsFile::Crl => "peer-crl-file",
    }
}
