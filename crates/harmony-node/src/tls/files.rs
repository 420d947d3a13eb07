//! The files behind a [`TlsConfig`], and what they amount to.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig,
    SupportedProtocolVersion,
};

use super::verify::{AnyServer, NamedClient, NamedServer};
use super::{Loaded, TlsConfig, TlsIdentity, TlsVersion, auto, cipher};

/// Largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Which of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFile {
    /// The certificate.
    Certificate,
    /// Its key.
    Key,
    /// The certificate to dial with.
    DialCertificate,
    /// Its key.
    DialKey,
    /// Those who sign for the other side.
    TrustedCa,
    /// Revoked certificates.
    Crl,
}

impl fmt::Display for TlsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::DialCertificate => "certificate to dial with",
            Self::DialKey => "key to dial with",
            Self::TrustedCa => "trusted CA",
            Self::Crl => "list of revoked certificates",
        })
    }
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{file} {path}: {source}: check the path and who may read it")]
    Read {
        /// Which.
        file: TlsFile,
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{file} {path}: {reason}")]
    Content {
        /// Which.
        file: TlsFile,
        /// Where.
        path: PathBuf,
        /// What is wrong, and what should be there.
        reason: String,
    },
    /// Options that do not fit together.
    #[error("{0}")]
    Options(&'static str),
    /// A certificate could not be made.
    #[error("make a self-signed certificate: {0}: check the hosts in the URLs")]
    SelfSigned(String),
}

/// Every file in use with its bytes, so that a change of any is a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    files: Vec<(TlsFile, PathBuf, Vec<u8>)>,
    unreadable: String,
}

impl Contents {
    /// Reads all files.
    pub(super) fn read(paths: Vec<(TlsFile, &PathBuf)>) -> Result<Self, TlsError> {
        let files = paths.into_iter().map(|(file, path)| {
            let bytes =
                read_file(path).map_err(|source| TlsError::Read { file, path: path.clone(), source })?;
            Ok((file, path.clone(), bytes))
        });
        Ok(Self { files: files.collect::<Result<_, TlsError>>()?, unreadable: String::new() })
    }

    /// What was seen when a file could not be read.
    pub(super) fn unreadable(reason: String) -> Self {
        Self { files: Vec::new(), unreadable: reason }
    }

    pub(super) fn get(&self, file: TlsFile) -> Option<(&Path, &[u8])> {
        let (_, path, bytes) = self.files.iter().find(|(found, ..)| *found == file)?;
        Some((path, bytes))
    }
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;

    let file = std::fs::File::open(path)?;
    // A path that leads to a directory or device by mistake would be a riddle, or have no end.
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Makes of the files what connections need.
pub(super) fn load(config: &TlsConfig, contents: &Contents) -> Result<Loaded, TlsError> {
    if config.max_version < config.min_version {
        return Err(TlsError::Options("the newest TLS version is older than the oldest"));
    }
    let self_signed = matches!(config.identity, TlsIdentity::SelfSigned { .. });
    let roots = roots(contents)?;
    if roots.is_none() {
        let asks = config.client_cert_auth || config.crl_file.is_some() || !config.allowed.is_empty();
        if asks {
            return Err(TlsError::Options(
                "certificates of the other side are to be checked, but no trusted CA says against what",
            ));
        }
    } else if self_signed {
        return Err(TlsError::Options(
            "a trusted CA cannot be used together with self-signed certificates: give a certificate and key that it signed",
        ));
    }
    let provider = Arc::new(cipher::provider(&config.cipher_suites));
    let own = own_pair(config, contents, &provider)?;
    let dial_pair = pair(contents, TlsFile::DialCertificate, TlsFile::DialKey, &provider)?;
    let versions = versions(config);
    let broken = |error: Error| match contents.get(TlsFile::Certificate) {
        Some((path, _)) => content(TlsFile::Certificate, path, error.to_string()),
        None => TlsError::SelfSigned(error.to_string()),
    };

    let crls = crls(contents)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(broken)?;
    let builder = match &roots {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider))
                    .with_crls(crls.iter().cloned())
                    .allow_unknown_revocation_status()
                    .build()
                    .map_err(|error| bad_crl(contents, error.to_string()))?;
            let allowed = config.allowed.clone();
            builder.with_client_cert_verifier(Arc::new(NamedClient { inner: verifier, allowed }))
        }
    };
    let mut server = builder.with_single_cert(own.0.clone(), own.1.clone_key()).map_err(broken)?;
    // A session that is resumed is not checked again: a certificate revoked meanwhile would live on in it.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.alpn_protocols = alpn(&config.protocols);

    let (certificates, key) = dial_pair.unwrap_or(own);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(broken)?;
    let builder = match roots {
        Some(roots) => {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .with_crls(crls)
                .allow_unknown_revocation_status()
                .build()
                .map_err(|error| bad_crl(contents, error.to_string()))?;
            let allowed = config.allowed.clone();
            let verifier = Arc::new(NamedServer { inner: verifier, allowed });
            Some(builder.dangerous().with_custom_certificate_verifier(verifier))
        }
        None if self_signed => {
            let verifier = Arc::new(AnyServer(provider));
            Some(builder.dangerous().with_custom_certificate_verifier(verifier))
        }
        None => None,
    };
    let client = builder
        .map(|builder| builder.with_client_auth_cert(certificates, key).map_err(broken))
        .transpose()?
        .map(|mut client| {
            client.resumption = Resumption::disabled();
            client.alpn_protocols = alpn(&config.protocols);
            Arc::new(client)
        });
    Ok(Loaded { server: Arc::new(server), client })
}

/// Protocols as rustls wants them.
pub(super) fn alpn(protocols: &[&str]) -> Vec<Vec<u8>> {
    protocols.iter().map(|name| name.as_bytes().to_vec()).collect()
}

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn own_pair(config: &TlsConfig, contents: &Contents, provider: &CryptoProvider) -> Result<Pair, TlsError> {
    match &config.identity {
        TlsIdentity::SelfSigned { hosts, valid_years } => {
            auto::generate(hosts, *valid_years).map_err(|error| TlsError::SelfSigned(error.to_string()))
        }
        TlsIdentity::Files { .. } => {
            let pair = pair(contents, TlsFile::Certificate, TlsFile::Key, provider)?;
            Ok(pair.expect("both files were read"))
        }
    }
}

/// A certificate and its key, if they are in use.
pub(super) fn pair(
    contents: &Contents,
    certificate: TlsFile,
    key: TlsFile,
    provider: &CryptoProvider,
) -> Result<Option<Pair>, TlsError> {
    let (Some((cert_path, cert_bytes)), Some((key_path, key_bytes))) =
        (contents.get(certificate), contents.get(key))
    else {
        return Ok(None);
    };
    let certificates = certificates(certificate, cert_path, cert_bytes)?;
    let private = PrivateKeyDer::from_pem_slice(key_bytes).map_err(|error| {
        let reason = format!(
            "{error}: it must hold one PEM block \"BEGIN PRIVATE KEY\", unencrypted (PKCS#8, PKCS#1 or SEC1)"
        );
        content(key, key_path, reason)
    })?;
    use rustls::sign::CertifiedKey;
    match CertifiedKey::from_der(certificates.clone(), private.clone_key(), provider) {
        Ok(_) => Ok(Some((certificates, private))),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let reason = format!("it is not the key of the first certificate in {}", cert_path.display());
            Err(content(key, key_path, reason))
        }
        Err(Error::InvalidCertificate(CertificateError::BadEncoding)) => {
            Err(content(certificate, cert_path, "the certificate is damaged".to_owned()))
        }
        Err(error) => {
            let reason = format!("{error}: use RSA of 2048 bits or more, ECDSA P-256 or P-384, or Ed25519");
            Err(content(key, key_path, reason))
        }
    }
}

pub(super) fn certificates(
    file: TlsFile,
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| content(file, path, format!("{error}: it must be PEM")))?;
    if found.is_empty() {
        let reason = "no certificate in it: it must hold PEM blocks \"BEGIN CERTIFICATE\"";
        return Err(content(file, path, reason.to_owned()));
    }
    Ok(found)
}

pub(super) fn roots(contents: &Contents) -> Result<Option<Arc<RootCertStore>>, TlsError> {
    let Some((path, bytes)) = contents.get(TlsFile::TrustedCa) else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    for (slot, certificate) in certificates(TlsFile::TrustedCa, path, bytes)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            content(TlsFile::TrustedCa, path, format!("certificate {} in it: {error}", slot + 1))
        })?;
    }
    Ok(Some(Arc::new(roots)))
}

/// All lists in the file, which is PEM, or one list as DER.
fn crls(contents: &Contents) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let Some((path, bytes)) = contents.get(TlsFile::Crl) else { return Ok(Vec::new()) };
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
    let found =
        found.map_err(|error| content(TlsFile::Crl, path, format!("{error}: it must be PEM or DER")))?;
    if found.is_empty() { Ok(vec![bytes.to_vec().into()]) } else { Ok(found) }
}

fn bad_crl(contents: &Contents, reason: String) -> TlsError {
    match contents.get(TlsFile::Crl) {
        Some((path, _)) => content(
            TlsFile::Crl,
            path,
            format!("{reason}: it must hold PEM blocks \"BEGIN X509 CRL\", or be DER"),
        ),
        None => TlsError::Options("nobody is trusted: the trusted CA is empty"),
    }
}

fn content(file: TlsFile, path: &Path, reason: String) -> TlsError {
    TlsError::Content { file, path: path.to_owned(), reason }
}

fn versions(config: &TlsConfig) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::V13, &rustls::version::TLS13), (TlsVersion::V12, &rustls::version::TLS12)];
    let wanted = config.min_version..=config.max_version;
    all.into_iter().filter(|(version, _)| wanted.contains(version)).map(|(_, version)| version).collect()
}
