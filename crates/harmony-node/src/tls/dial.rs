//! TLS of a program that dials servers and is no member: whom it trusts, and with what it proves who it is.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client};

use super::files::{self, Contents};
use super::verify::AnyServer;
use super::{TlsError, TlsFile, cipher};

/// What is wanted. Files are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialConfig {
    /// Whom it trusts.
    pub trusted: Trusted,
    /// Certificate and key to show; `None`: it shows none.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// What is spoken inside, the preferred one first (ALPN).
    pub protocols: Vec<&'static str>,
}

/// Whom somebody who dials trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// Those whom one of the certificates in this file signed.
    File(PathBuf),
    /// The same with the system's own collection: what is in it and cannot be used is left out.
    System(PathBuf),
    /// Anybody: what is said is hidden from those who only listen, and whoever answers may be anyone.
    Anybody,
}

/// TLS that is ready to dial with.
#[derive(Clone)]
pub struct Dialer(TlsConnector);

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    /// Reads the files and checks that they fit together.
    ///
    /// # Errors
    /// The first mistake, with its file.
    pub fn open(config: &DialConfig) -> Result<Self, TlsError> {
        let mut paths = Vec::new();
        if let Some((cert_file, key_file)) = &config.identity {
            paths.extend([(TlsFile::Certificate, cert_file), (TlsFile::Key, key_file)]);
        }
        if let Trusted::File(path) | Trusted::System(path) = &config.trusted {
            paths.push((TlsFile::TrustedCa, path));
        }
        let contents = Contents::read(paths)?;
        let provider = Arc::new(cipher::provider(&[]));
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|_| TlsError::Options("no version of TLS can be used"))?;
        let builder = match &config.trusted {
            Trusted::Anybody => {
                let verifier = Arc::new(AnyServer(Arc::clone(&provider)));
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
            Trusted::File(_) => {
                let roots = files::roots(&contents)?.unwrap_or_else(|| Arc::new(RootCertStore::empty()));
                builder.with_root_certificates(roots)
            }
            Trusted::System(_) => builder.with_root_certificates(system_roots(&contents)?),
        };
        let mut client = match files::pair(&contents, TlsFile::Certificate, TlsFile::Key, &provider)? {
            None => builder.with_no_client_auth(),
            Some((certificates, key)) => builder
                .with_client_auth_cert(certificates, key)
                .map_err(|_| TlsError::Options("the certificate cannot be used to dial with"))?,
        };
        client.alpn_protocols = files::alpn(&config.protocols);
        Ok(Self(TlsConnector::from(Arc::new(client))))
    }

    /// Shakes hands with the server of this name or address.
    ///
    /// # Errors
    /// It is not who it should be, does not let us in, or does not speak TLS.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        self.0.connect(name, stream).await
    }
}

fn system_roots(contents: &Contents) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some((path, bytes)) = contents.get(TlsFile::TrustedCa) {
        roots.add_parsable_certificates(files::certificates(TlsFile::TrustedCa, path, bytes)?);
    }
    Ok(Arc::new(roots))
}
