//! Logging in: before its first call on a connection a client with credentials gets a token, which its calls then carry.

use std::fmt;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::{Client, ClientError, Connection, Endpoint};
use crate::proto::etcdserverpb::AuthenticateRequest;
use crate::proto::etcdserverpb::auth_client::AuthClient;

/// The answer of a server that asks nobody who it is.
const NOT_ENABLED: &str = "etcdserver: authentication is not enabled";

/// A user and the password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    user: String,
    password: String,
}

/// Without the password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Credentials {
    /// From `NAME:PASSWORD`, or a name and its password apart; a password may hold a colon, a name may not.
    ///
    /// # Errors
    /// Says what is missing.
    pub(crate) fn new(user: Option<String>, password: Option<String>) -> Result<Option<Self>, &'static str> {
        let Some(user) = user else {
            return match password {
                Some(_) => Err("a password without a user: give --user, too"),
                None => Ok(None),
            };
        };
        if let Some(password) = password {
            return Ok(Some(Self { user, password }));
        }
        match user.split_once(':') {
            Some((user, password)) => Ok(Some(Self { user: user.to_owned(), password: password.to_owned() })),
            None => Err("a user without a password: give --user NAME:PASSWORD, or set HARMONY_PASSWORD"),
        }
    }
}

/// Puts the token on every call.
#[derive(Clone, Debug)]
pub(crate) struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

impl Client {
    /// A connection on behalf of the client's user.
    pub(super) async fn login(
        &self,
        endpoint: &Endpoint,
        channel: Channel,
    ) -> Result<Connection, ClientError> {
        let Some(Credentials { user, password }) = self.credentials.clone() else {
            return Ok(InterceptedService::new(channel, Token(None)));
        };
        let mut auth = AuthClient::new(channel.clone());
        let call = auth.authenticate(AuthenticateRequest { name: user, password });
        let token = match self.answer(endpoint, false, call).await {
            Ok(answer) => {
                let token = answer.token.parse();
                Some(token.map_err(|_| ClientError::Failed(format!("{endpoint}: a token that is no text")))?)
            }
            Err(ClientError::Refused { message, .. }) if message == NOT_ENABLED => None,
            Err(error) => return Err(error),
        };
        Ok(InterceptedService::new(channel, Token(token)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_come_together_or_apart() {
        let new = |user: Option<&str>, password: Option<&str>| {
            let credentials = Credentials::new(user.map(str::to_owned), password.map(str::to_owned));
            credentials.map(|found| found.map(|found| (found.user, found.password)))
        };
        let found = |user: &str, password: &str| Ok(Some((user.to_owned(), password.to_owned())));
        assert_eq!(new(None, None), Ok(None));
        assert_eq!(new(Some("a:b"), None), found("a", "b"));
        assert_eq!(new(Some("a:b:c"), None), found("a", "b:c"));
        assert_eq!(new(Some("a:"), None), found("a", ""));
        assert_eq!(new(Some("a"), Some("b")), found("a", "b"));
        assert!(new(Some("a"), None).unwrap_err().contains("HARMONY_PASSWORD"));
        assert!(new(None, Some("b")).unwrap_err().contains("--user"));
        let shown = format!("{:?}", Credentials::new(Some("a:secret".into()), None));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
