//! TLS of one listener and of the connections that its owner dials: certificates from files, read anew when they change.
//!
//! [`TlsConfig`] says what is wanted, [`Tls`] is what was made of it. The files are looked at before each new connection:
//! one that was replaced counts for that connection already, and connections that stand go on. A replacement that cannot be
//! used (half written, certificate and key of different pairs) is told once in the log, and the last good files go on
//! counting. Sessions are never resumed, so whoever connects is checked against the files of now, revocations too.
//!
//! Peers use it here, and a server for its clients: [`Tls::accept`]. A program that is no member dials with a [`Dialer`].

mod auto;
mod cipher;
mod common_name;
mod dial;
mod files;
mod stream;
mod verify;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server};

pub use self::cipher::CipherSuite;
pub use self::dial::{DialConfig, Dialer, Trusted};
use self::files::Contents;
pub use self::files::{TlsError, TlsFile};
pub use self::stream::MaybeTls;

/// How long a new connection waits for the files: a disk that hangs must not keep members from each other.
const FILES_TIMEOUT: Duration = Duration::from_secs(1);

/// What is wanted. Files are PEM; a list of revoked certificates may be DER, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// With what this side proves who it is.
    pub identity: TlsIdentity,
    /// Certificates of those who sign for the other side. Without them nothing can be dialed, unless the identity is
    /// self-signed.
    pub trusted_ca_file: Option<PathBuf>,
    /// Whoever connects must have a certificate that is signed so; implied by `trusted_ca_file`, as in etcd.
    pub client_cert_auth: bool,
    /// Certificates that are revoked. The list's own date of expiry is not looked at.
    pub crl_file: Option<PathBuf>,
    /// Names of which the other side's certificate must have one; empty: any. Checked in both directions.
    pub allowed: Vec<AllowedName>,
    /// Oldest version spoken.
    pub min_version: TlsVersion,
    /// Newest version spoken.
    pub max_version: TlsVersion,
    /// Suites of TLS 1.2 that may be used; empty: all that are known. Those of TLS 1.3 are always on.
    pub cipher_suites: Vec<CipherSuite>,
    /// What is spoken inside, the preferred one first (ALPN); empty: nothing is said of that.
    pub protocols: Vec<&'static str>,
}

/// With what one side proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsIdentity {
    /// A certificate, those that lead from it to a trusted one, and its key.
    Files {
        /// The certificates, the own one first.
        cert_file: PathBuf,
        /// The key: PKCS#8, PKCS#1 or SEC1.
        key_file: PathBuf,
        /// Another pair to dial with: certificate, key.
        dial_with: Option<(PathBuf, PathBuf)>,
    },
    /// A certificate made at start, which nobody can check: it hides what is said from those who only listen, and proves
    /// nothing to anybody. Both sides must do so.
    SelfSigned {
        /// Names and addresses that it is for.
        hosts: Vec<String>,
        /// How long it is valid, years.
        valid_years: u32,
    },
}

impl TlsConfig {
    /// An identity, any version, and nobody checked yet.
    #[must_use]
    pub const fn new(identity: TlsIdentity) -> Self {
        Self {
            identity,
            trusted_ca_file: None,
            client_cert_auth: false,
            crl_file: None,
            allowed: Vec::new(),
            min_version: TlsVersion::V12,
            max_version: TlsVersion::V13,
            cipher_suites: Vec::new(),
            protocols: Vec::new(),
        }
    }

    /// The files in use.
    fn paths(&self) -> Vec<(TlsFile, &PathBuf)> {
        let mut paths = Vec::new();
        if let TlsIdentity::Files { cert_file, key_file, dial_with } = &self.identity {
            paths.extend([(TlsFile::Certificate, cert_file), (TlsFile::Key, key_file)]);
            if let Some((cert_file, key_file)) = dial_with {
                paths.extend([(TlsFile::DialCertificate, cert_file), (TlsFile::DialKey, key_file)]);
            }
        }
        paths.extend(self.trusted_ca_file.iter().map(|path| (TlsFile::TrustedCa, path)));
        paths.extend(self.crl_file.iter().map(|path| (TlsFile::Crl, path)));
        paths
    }
}

/// A name that the other side's certificate must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedName {
    /// The subject's common name, letter by letter.
    CommonName(String),
    /// A host name or address among the alternative names, wildcards honoured.
    Hostname(String),
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

impl TlsVersion {
    /// Reads etcd's spelling, `TLS1.2` or `TLS1.3`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "TLS1.2" => Some(Self::V12),
            "TLS1.3" => Some(Self::V13),
            _ => None,
        }
    }
}

/// TLS that is ready for use.
pub struct Tls {
    config: TlsConfig,
    loaded: Mutex<Arc<Loaded>>,
    /// What the files held when they were looked at last, good or not.
    seen: Mutex<Contents>,
}

/// What one state of the files amounts to.
struct Loaded {
    server: Arc<ServerConfig>,
    client: Option<Arc<ClientConfig>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tls({:?})", self.config)
    }
}

impl Tls {
    /// Reads the files and checks that they fit together.
    ///
    /// # Errors
    /// The first mistake, with its file.
    pub fn open(config: TlsConfig) -> Result<Arc<Self>, TlsError> {
        let contents = Contents::read(config.paths())?;
        let loaded = files::load(&config, &contents)?;
        Ok(Arc::new(Self { config, loaded: Mutex::new(Arc::new(loaded)), seen: Mutex::new(contents) }))
    }

    /// For connections that are accepted, as the files were when they were looked at last.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.loaded().server)
    }

    /// For connections that are dialed, as the files were when they were looked at last; `None` when nobody could be
    /// trusted at the other end.
    #[must_use]
    pub fn client(&self) -> Option<Arc<ClientConfig>> {
        self.loaded().client.clone()
    }

    /// Looks whether the files have changed and takes them over if they can be used; reads the disk. What cannot be used is
    /// logged, once for each state of the files.
    pub fn refresh(&self) {
        // Somebody else looks at this moment: that is fresh enough, and threads do not queue up before a disk that hangs.
        let Ok(mut seen) = self.seen.try_lock() else { return };
        let kept = "the certificates of before stay in use";
        let contents = match Contents::read(self.config.paths()) {
            Ok(contents) => contents,
            Err(error) => {
                let contents = Contents::unreadable(error.to_string());
                if *seen != contents {
                    tracing::error!(%error, "TLS files cannot be read: {kept}");
                    *seen = contents;
                }
                return;
            }
        };
        if *seen == contents {
            return;
        }
        match files::load(&self.config, &contents) {
            Ok(loaded) => {
                *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                tracing::info!("TLS files have changed: new connections use the new ones");
            }
            Err(error) => tracing::error!(%error, "TLS files have changed and cannot be used: {kept}"),
        }
        *seen = contents;
    }

    /// Shakes hands with whoever connected, by the files of now. Waits for the other side as long as the caller does.
    ///
    /// # Errors
    /// The other side is not let in, or does not speak TLS.
    pub async fn accept<S>(self: &Arc<Self>, stream: S) -> io::Result<server::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.refresh_soon().await;
        TlsAcceptor::from(self.server()).accept(stream).await.map_err(explain)
    }

    /// [`Tls::refresh`] for a task that must not wait for a disk.
    pub(crate) async fn refresh_soon(self: &Arc<Self>) {
        let own = Arc::clone(self);
        // An end by time means that the disk hangs: what was read last counts.
        let _ = tokio::time::timeout(FILES_TIMEOUT, tokio::task::spawn_blocking(move || own.refresh())).await;
    }

    fn loaded(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The common name in the certificate of whoever connected; `None` when it showed none, or one without such a name.
#[must_use]
pub fn client_name<S>(stream: &server::TlsStream<S>) -> Option<String> {
    common_name::of(stream.get_ref().1.peer_certificates()?.first()?)
}

/// In words what happens when only one side speaks TLS.
fn explain(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{error}: the other side does not speak TLS; its URL for this member must begin with https://"
            ),
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests;
