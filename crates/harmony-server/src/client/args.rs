//! The options that every client command has. They may stand before the command's name, too, as with `etcdctl`; what
//! stands behind the name wins, a flag wins over the environment, and there `HARMONY_` wins over `ETCDCTL_`, which counts as well.

use std::env;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::tls::TlsArgs;
use super::{Client, ClientError, Credentials, Endpoint, Output};

const ENDPOINTS_DEFAULT: &str = "127.0.0.1:2379";
const COMMAND_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
const DIAL_TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);

/// The formats of `etcdctl` that every command has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WriteOut {
    /// Lines or a table, as the command has it
    Simple,
    /// JSON, keys and values in base64
    Json,
}

/// Options of a client. All are optional here; [`ClientArgs::client`] fills in environment and defaults.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Client options")]
pub(crate) struct ClientArgs {
    /// Servers to ask, tried in this order [env: HARMONY_ENDPOINTS] [default: 127.0.0.1:2379]
    #[arg(long, value_name = "HOST:PORT,...")]
    endpoints: Vec<String>,

    /// How long to wait for an answer [env: HARMONY_COMMAND_TIMEOUT] [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    command_timeout: Option<Duration>,

    /// How long to wait for a connection [env: HARMONY_DIAL_TIMEOUT] [default: 2s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    dial_timeout: Option<Duration>,

    /// Who asks, with the password or without [env: HARMONY_USER]
    #[arg(long, value_name = "NAME[:PASSWORD]")]
    user: Option<String>,

    /// The user's password; others on this machine can see it, the environment is better [env: HARMONY_PASSWORD]
    #[arg(long)]
    password: Option<String>,

    /// Print the answer as JSON: keys and values in base64, as etcdctl does
    #[arg(long)]
    json: bool,

    /// How to print the answer: json is what --json is
    #[arg(long, short = 'w', value_name = "FORMAT")]
    write_out: Option<WriteOut>,

    /// Print keys and values as \xNN bytes
    #[arg(long)]
    hex: bool,

    #[command(flatten)]
    tls: TlsArgs,
}

impl ClientArgs {
    /// These options, with `earlier` ones (from before the command's name) where this has none.
    pub(crate) fn or(self, earlier: Self) -> Self {
        Self {
            endpoints: if self.endpoints.is_empty() { earlier.endpoints } else { self.endpoints },
            command_timeout: self.command_timeout.or(earlier.command_timeout),
            dial_timeout: self.dial_timeout.or(earlier.dial_timeout),
            user: self.user.or(earlier.user),
            password: self.password.or(earlier.password),
            json: self.json || earlier.json,
            write_out: self.write_out.or(earlier.write_out),
            hex: self.hex || earlier.hex,
            tls: self.tls.or(earlier.tls),
        }
    }

    /// The first option that was given, for a command that is no client.
    pub(crate) fn first_given(&self) -> Option<&'static str> {
        let given = [
            (!self.endpoints.is_empty(), "--endpoints"),
            (self.command_timeout.is_some(), "--command-timeout"),
            (self.dial_timeout.is_some(), "--dial-timeout"),
            (self.user.is_some(), "--user"),
            (self.password.is_some(), "--password"),
            (self.json, "--json"),
            (self.write_out.is_some(), "--write-out"),
            (self.hex, "--hex"),
        ];
        let given = given.into_iter().find_map(|(is_given, flag)| is_given.then_some(flag));
        given.or_else(|| self.tls.first_given())
    }

    /// The client that these options, the environment and the defaults describe.
    ///
    /// # Errors
    /// [`ClientError::Usage`] for an endpoint or a duration that cannot be read.
    pub(crate) fn client(&self) -> Result<Client, ClientError> {
        let endpoints = if self.endpoints.is_empty() {
            variable("ENDPOINTS").map_or_else(|| ENDPOINTS_DEFAULT.to_owned(), |(_, list)| list)
        } else {
            self.endpoints.join(",")
        };
        let endpoints = self.tls.secure(Endpoint::parse_list(&endpoints).map_err(ClientError::Usage)?)?;
        let dial = duration(self.dial_timeout, "DIAL_TIMEOUT", DIAL_TIMEOUT_DEFAULT)?;
        let command = duration(self.command_timeout, "COMMAND_TIMEOUT", COMMAND_TIMEOUT_DEFAULT)?;
        Ok(Client::new(endpoints, dial, command).with_credentials(self.credentials()?))
    }

    fn credentials(&self) -> Result<Option<Credentials>, ClientError> {
        let value = |name| variable(name).map(|(_, value)| value);
        let user = self.user.clone().or_else(|| value("USER"));
        let password = self.password.clone().or_else(|| value("PASSWORD"));
        Credentials::new(user, password).map_err(|reason| ClientError::Usage(reason.to_owned()))
    }

    /// How to print.
    pub(crate) fn output(&self) -> Output {
        Output { json: self.json || self.write_out == Some(WriteOut::Json), hex: self.hex }
    }
}

/// The variable of this name, ours or `etcdctl`'s: its whole name and its value.
pub(super) fn variable(name: &str) -> Option<(String, String)> {
    ["HARMONY_", "ETCDCTL_"].into_iter().find_map(|prefix| {
        let name = format!("{prefix}{name}");
        let value = env::var(&name).ok().filter(|value| !value.is_empty())?;
        Some((name, value))
    })
}

/// Reads a yes or no as etcd's flags do.
///
/// # Errors
/// Says what was expected.
pub(crate) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("\"{text}\" is neither true nor false")),
    }
}

fn duration(flag: Option<Duration>, name: &str, default: Duration) -> Result<Duration, ClientError> {
    match (flag, variable(name)) {
        (Some(flag), _) => Ok(flag),
        (None, Some((name, text))) => {
            parse_duration(&text).map_err(|reason| ClientError::Usage(format!("{name}: {reason}")))
        }
        (None, None) => Ok(default),
    }
}

/// Reads a duration: a number and `ms`, `s`, `m` or `h`, such as `500ms` or `1h30m`. Zero is refused.
///
/// # Errors
/// Says what was expected.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = duration_of(text).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| format!("\"{text}\" is no duration, expected one like 500ms, 5s, 1m"))
}

/// Reads a duration of one part or several, such as `1h30m`, as Go does; `None` for what is none.
pub(crate) fn duration_of(text: &str) -> Option<Duration> {
    let (mut sum, mut rest) = (None, text);
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, behind) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, behind) = behind.split_at(behind.find(is_number).unwrap_or(behind.len()));
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = Some(sum.unwrap_or(Duration::ZERO).checked_add(part)?);
        rest = behind;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse_duration("1h30m0.5s"), Ok(Duration::from_millis(5_400_500)));
        assert_eq!(duration_of("0s"), Some(Duration::ZERO));
        for wrong in ["1h30", "1h-3m", "h1", "5", "", "s", "0s", "-1s", "1d", "1e99h", "..s"] {
            assert!(parse_duration(wrong).unwrap_err().contains("expected one like"), "{wrong}");
        }
    }

    #[test]
    fn options_behind_the_command_win() {
        let early = ClientArgs { endpoints: vec!["a:1".into()], json: true, ..ClientArgs::default() };
        let late = ClientArgs { endpoints: vec!["b:2".into(), "c:3".into()], ..ClientArgs::default() };
        let merged = late.or(early.clone());
        assert_eq!((merged.client().unwrap().endpoints().len(), merged.output().json), (2, true));
        assert_eq!(early.first_given(), Some("--endpoints"));
        assert_eq!(ClientArgs::default().first_given(), None);
    }
}
