//! TLS of the client, with the names that `etcdctl` has for it.

use std::env;
use std::path::{Path, PathBuf};

use clap::Args;
use harmony_node::tls::{DialConfig, Dialer, Trusted};

use super::args::{parse_bool, variable};
use super::{ClientError, Endpoint};

/// Where systems keep the certificates that they trust, as Go looks for them; the first that is there counts.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Options of TLS. An endpoint with `https://` uses TLS, one with `http://` does not, one without either does when one of the
/// first three, or `--insecure-transport=false`, is given.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TlsArgs {
    /// Certificates of those who sign for servers, PEM [env: HARMONY_CACERT] [default: the system's]
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,

    /// Certificate to show to servers, PEM [env: HARMONY_CERT]
    #[arg(long = "cert", value_name = "FILE")]
    client_cert: Option<PathBuf>,

    /// Key of --cert [env: HARMONY_KEY]
    // Commands have keys of their own, so the field is not `key`.
    #[arg(long = "key", value_name = "FILE")]
    client_key: Option<PathBuf>,

    /// Take any server for the right one [env: HARMONY_INSECURE_SKIP_TLS_VERIFY]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = parse_bool)]
    insecure_skip_tls_verify: Option<bool>,

    /// Whether endpoints without https:// may be plain [env: HARMONY_INSECURE_TRANSPORT] [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          value_parser = parse_bool)]
    insecure_transport: Option<bool>,
}

impl TlsArgs {
    /// These options, with `earlier` ones where this has none.
    pub(crate) fn or(self, earlier: Self) -> Self {
        Self {
            cacert: self.cacert.or(earlier.cacert),
            client_cert: self.client_cert.or(earlier.client_cert),
            client_key: self.client_key.or(earlier.client_key),
            insecure_skip_tls_verify: self.insecure_skip_tls_verify.or(earlier.insecure_skip_tls_verify),
            insecure_transport: self.insecure_transport.or(earlier.insecure_transport),
        }
    }

    /// The first option that was given.
    pub(crate) fn first_given(&self) -> Option<&'static str> {
        let given = [
            (self.cacert.is_some(), "--cacert"),
            (self.client_cert.is_some(), "--cert"),
            (self.client_key.is_some(), "--key"),
            (self.insecure_skip_tls_verify.is_some(), "--insecure-skip-tls-verify"),
            (self.insecure_transport.is_some(), "--insecure-transport"),
        ];
        given.into_iter().find_map(|(is_given, flag)| is_given.then_some(flag))
    }

    /// The options, and those of the environment where these say nothing.
    fn or_environment(&self) -> Result<Self, ClientError> {
        let file = |name| variable(name).map(|(_, path)| PathBuf::from(path));
        let flag = |name| match variable(name) {
            None => Ok(None),
            Some((name, text)) => {
                let read = parse_bool(&text).map(Some);
                read.map_err(|reason| ClientError::Usage(format!("{name}: {reason}")))
            }
        };
        Ok(self.clone().or(Self {
            cacert: file("CACERT"),
            client_cert: file("CERT"),
            client_key: file("KEY"),
            insecure_skip_tls_verify: flag("INSECURE_SKIP_TLS_VERIFY")?,
            insecure_transport: flag("INSECURE_TRANSPORT")?,
        }))
    }

    /// The endpoints, those that are to speak TLS with what they need for it.
    ///
    /// # Errors
    /// [`ClientError::Usage`]: options that do not fit together, or a file that cannot be used.
    pub(crate) fn secure(&self, endpoints: Vec<Endpoint>) -> Result<Vec<Endpoint>, ClientError> {
        let given = self.or_environment()?;
        let by_default = given.cacert.is_some()
            || given.client_cert.is_some()
            || given.client_key.is_some()
            || given.insecure_transport == Some(false);
        let wants_tls = |endpoint: &Endpoint| endpoint.is_tls().unwrap_or(by_default);
        if !endpoints.iter().any(wants_tls) {
            return Ok(endpoints);
        }
        let dialer = given.dialer()?;
        Ok(endpoints
            .into_iter()
            .map(|endpoint| match wants_tls(&endpoint) {
                true => endpoint.with_tls(dialer.clone()),
                false => endpoint,
            })
            .collect())
    }

    fn dialer(self) -> Result<Dialer, ClientError> {
        let usage = |text: &str| ClientError::Usage(text.to_owned());
        let identity = match (self.client_cert, self.client_key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return Err(usage("--cert needs --key")),
            (None, Some(_)) => return Err(usage("--key needs --cert")),
        };
        let trusted = match (self.insecure_skip_tls_verify, self.cacert) {
            (Some(true), _) => Trusted::Anybody,
            (_, Some(path)) => Trusted::File(path),
            (_, None) => Trusted::System(system_bundle().ok_or_else(|| {
                usage("this system has no certificates to check the server's with: give --cacert")
            })?),
        };
        let config = DialConfig { trusted, identity, protocols: vec!["h2"] };
        Dialer::open(&config).map_err(|error| ClientError::Usage(error.to_string()))
    }
}

fn system_bundle() -> Option<PathBuf> {
    if let Some(path) = env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    SYSTEM_BUNDLES.iter().map(Path::new).find(|path| path.exists()).map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &str) -> Vec<Endpoint> {
        Endpoint::parse_list(list).unwrap()
    }

    /// Which endpoints speak TLS.
    fn speak(args: &TlsArgs, list: &str) -> Vec<bool> {
        let endpoints = args.secure(parse(list)).unwrap();
        endpoints.iter().map(|endpoint| endpoint.to_string().starts_with("https://")).collect()
    }

    #[test]
    fn the_scheme_decides_and_without_one_the_options_do() {
        let list = "https://a:1,http://b:1,c:1";
        let any = TlsArgs { insecure_skip_tls_verify: Some(true), ..TlsArgs::default() };
        assert_eq!(speak(&any, list), [true, false, false]);
        let strict = TlsArgs { insecure_transport: Some(false), ..any };
        assert_eq!(speak(&strict, list), [true, false, true]);
        assert_eq!(speak(&TlsArgs::default(), "http://b:1,c:1"), [false, false]);
    }

    #[test]
    fn what_does_not_fit_together_or_cannot_be_read_is_named() {
        let refusal = |args: TlsArgs| args.secure(parse("a:1")).unwrap_err().to_string();
        let file = || Some(PathBuf::from("/no/such/file"));
        assert_eq!(refusal(TlsArgs { client_cert: file(), ..TlsArgs::default() }), "--cert needs --key");
        assert_eq!(refusal(TlsArgs { client_key: file(), ..TlsArgs::default() }), "--key needs --cert");
        let missing = refusal(TlsArgs { cacert: file(), ..TlsArgs::default() });
        assert!(missing.contains("/no/such/file"), "{missing}");
    }
}
