//! Where options come from besides flags: etcd's environment variables, and a file in TOML or, as etcd's, in YAML.
//!
//! Both are read as the flags of the same names are, so that a value means the same everywhere. Flags win over `HARMONY_*`
//! variables, these over `ETCD_*`, these over the file.

use std::fs;
use std::path::Path;

use clap::{Args, Command, FromArgMatches as _};
use harmony_types::config::ConfigError;
use yaml_rust2::{Yaml, YamlLoader};

use super::foreign::Foreigners;
use super::{Config, Options};

/// What etcd's variables begin with.
const PREFIX: &str = "ETCD_";

/// Many of etcd's flags had this in front for some releases.
const EXPERIMENTAL: &str = "experimental-";

/// Options of one source, and flags of etcd that are none.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(flatten)]
    pub(crate) foreign: Foreigners,
}

impl Flags {
    fn or(self, other: Self) -> Self {
        Self { options: self.options.or(other.options), foreign: self.foreign.and(other.foreign) }
    }

    /// Reads one flag by its name without dashes; `None` when there is no such flag.
    pub(super) fn read(name: &str, value: &str) -> Option<Result<Self, String>> {
        let command = command();
        let name = plain_name(&command, name)?;
        let matches = command.try_get_matches_from([format!("--{name}={value}")]);
        Some(matches.and_then(|matches| Self::from_arg_matches(&matches)).map_err(|error| {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }))
    }

    /// The whole configuration: these flags, the environment, the file, the defaults.
    ///
    /// # Errors
    /// Every mistake, with where it is.
    pub(crate) fn configure(
        self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let mut notices = Vec::new();
        let environment = from_environment(&self, environment, &mut notices)
            .map_err(|mistakes| ConfigError { mistakes })?;
        let mut flags = self.or(environment);
        if let Some(path) = flags.options.config_file.clone() {
            let file = from_file(&path).map_err(|text| ConfigError {
                mistakes: vec![format!("--config-file {}: {text}", path.display())],
            })?;
            flags = flags.or(file);
        }
        let (no_effect, refused) = flags.foreign.judge();
        notices.extend(no_effect);
        match Config::new(flags.options) {
            Ok(config) if refused.is_empty() => {
                notices.extend(config.notices);
                Ok(Config { notices, ..config })
            }
            Ok(_) => Err(ConfigError { mistakes: refused }),
            Err(error) => Err(ConfigError { mistakes: [refused, error.mistakes].concat() }),
        }
    }
}

/// A command with nothing but the flags, deaf to the environment.
fn command() -> Command {
    let command = Command::new("serve").no_binary_name(true).disable_help_flag(true);
    Flags::augment_args(command).mut_args(|arg| arg.env(None))
}

/// A flag's name as it is here; `None` when there is no such flag.
fn plain_name(command: &Command, name: &str) -> Option<String> {
    let is_flag = |name: &str| command.get_arguments().any(|arg| arg.get_long() == Some(name));
    let names = [Some(name), name.strip_prefix(EXPERIMENTAL)];
    names.into_iter().flatten().find(|name| is_flag(name)).map(str::to_owned)
}

/// One argument as `serve` has it: Go's programs take `-name` for `--name`, and names that were experimental once have lost that.
pub(crate) fn argument(text: &str) -> String {
    let Some(rest) = text.strip_prefix("--").or_else(|| text.strip_prefix('-')) else {
        return text.to_owned();
    };
    let (name, value) = match rest.split_once('=') {
        Some((name, value)) => (name, format!("={value}")),
        None => (rest, String::new()),
    };
    plain_name(&command(), name).map_or_else(|| text.to_owned(), |name| format!("--{name}{value}"))
}

fn from_environment(
    flags: &Flags,
    environment: impl IntoIterator<Item = (String, String)>,
    notices: &mut Vec<String>,
) -> Result<Flags, Vec<String>> {
    let mut found = Flags::default();
    let mut mistakes = Vec::new();
    let given = flags.options.given();
    // As in etcd, one that is empty says nothing.
    let mut variables: Vec<(String, String)> = environment
        .into_iter()
        .filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty())
        .collect();
    variables.sort();
    for (variable, value) in variables {
        let name = variable[PREFIX.len()..].to_lowercase().replace('_', "-");
        match Flags::read(&name, &value) {
            None => notices.push(format!("unrecognized environment variable {variable}")),
            Some(Err(error)) => mistakes.push(format!("{variable}: {error}")),
            Some(Ok(_)) if given.contains(&name) => {
                notices.push(format!(
                    "environment variable {variable} does not count: --{name} or its HARMONY_ variable is set"
                ));
            }
            Some(Ok(read)) => found = found.or(read),
        }
    }
    if mistakes.is_empty() { Ok(found) } else { Err(mistakes) }
}

/// A file whose name ends with `.toml` is TOML, any other YAML.
fn from_file(path: &Path) -> Result<Flags, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    if path.extension().is_some_and(|extension| extension == "toml") {
        return Ok(Flags { options: Options::from_toml(&text)?, ..Flags::default() });
    }
    from_yaml(&text)
}

fn from_yaml(text: &str) -> Result<Flags, String> {
    let documents = YamlLoader::load_from_str(text).map_err(|error| format!("no valid YAML: {error}"))?;
    let mut found = Flags::default();
    let Some(document) = documents.first() else { return Ok(found) };
    let map = document.as_hash().ok_or("no map of options: write `name: value`, one a line")?;
    for (key, value) in map {
        let key = key.as_str().ok_or_else(|| format!("{key:?} is no name of an option"))?;
        let section = match key {
            "client-transport-security" => Some(CLIENT_SECTION),
            "peer-transport-security" => Some(PEER_SECTION),
            _ => None,
        };
        match (section, value) {
            (None, value) => found = found.or(yaml_option(key, key, value)?),
            (Some(_), Yaml::Null) => {}
            (Some(names), value) => {
                let map = value.as_hash().ok_or_else(|| format!("{key} is no map of options"))?;
                for (inner, value) in map {
                    let inner = inner.as_str().ok_or_else(|| format!("{inner:?} is no name of an option"))?;
                    let known = names.iter().find(|(name, _)| *name == inner);
                    let (_, flag) = known.ok_or_else(|| format!("{key} has no option {inner:?}"))?;
                    found = found.or(yaml_option(&format!("{key}.{inner}"), flag, value)?);
                }
            }
        }
    }
    Ok(found)
}

/// Names in one of the sections about TLS, and the flags of the same meaning.
type Section = &'static [(&'static str, &'static str)];

const CLIENT_SECTION: Section = &[
    ("cert-file", "cert-file"),
    ("key-file", "key-file"),
    ("client-cert-file", "client-cert-file"),
    ("client-key-file", "client-key-file"),
    ("client-cert-auth", "client-cert-auth"),
    ("trusted-ca-file", "trusted-ca-file"),
    ("client-crl-file", "client-crl-file"),
    ("allowed-cn", "client-cert-allowed-cn"),
    ("allowed-hostname", "client-cert-allowed-hostname"),
    ("auto-tls", "auto-tls"),
];

const PEER_SECTION: Section = &[
    ("cert-file", "peer-cert-file"),
    ("key-file", "peer-key-file"),
    ("client-cert-file", "peer-client-cert-file"),
    ("client-key-file", "peer-client-key-file"),
    ("client-cert-auth", "peer-client-cert-auth"),
    ("trusted-ca-file", "peer-trusted-ca-file"),
    ("client-crl-file", "peer-crl-file"),
    ("allowed-cn", "peer-cert-allowed-cn"),
    ("allowed-hostname", "peer-cert-allowed-hostname"),
    ("auto-tls", "peer-auto-tls"),
];

fn yaml_option(place: &str, flag: &str, value: &Yaml) -> Result<Flags, String> {
    let text = yaml_text(value).ok_or_else(|| format!("{place} is neither a value nor a list of values"))?;
    if text.is_empty() {
        return Ok(Flags::default());
    }
    match Flags::read(flag, &text) {
        None => Err(format!("{place} is no option{}", nearest(flag))),
        Some(Err(error)) => Err(format!("{place}: {error}")),
        Some(Ok(read)) => Ok(read),
    }
}

/// A value as it would stand behind a flag; a list is separated by commas.
fn yaml_text(value: &Yaml) -> Option<String> {
    match value {
        Yaml::Null => Some(String::new()),
        Yaml::Boolean(value) => Some(value.to_string()),
        Yaml::Integer(value) => Some(value.to_string()),
        Yaml::Real(text) | Yaml::String(text) => Some(text.clone()),
        Yaml::Array(parts) => {
            let parts: Option<Vec<String>> = parts.iter().map(yaml_text).collect();
            parts.map(|parts| parts.join(","))
        }
        Yaml::Hash(_) | Yaml::Alias(_) | Yaml::BadValue => None,
    }
}

/// The flag that was probably meant, as clap finds it.
fn nearest(name: &str) -> String {
    let error = command().try_get_matches_from([format!("--{name}")]).err().map(|error| error.to_string());
    let tip = error.as_deref().and_then(|text| text.split("similar argument exists: '--").nth(1));
    tip.and_then(|tip| tip.split('\'').next())
        .map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

#[cfg(test)]
mod tests;
