//! Log lines on standard error.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};

use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// Libraries that tell at `info` and `debug` what only their developers want to know: they get less.
const TALKATIVE: [&str; 4] = ["raft", "h2", "hyper", "hyper_util"];

/// Starts logging for the whole process. A second call changes nothing: the first one's settings stay.
pub(crate) fn init(level: Level, format: LogFormat) {
    let lines =
        tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // An error means that a subscriber is there already, as in a test with several servers.
    let _already_set = tracing_subscriber::registry().with(lines).with(targets(level)).try_init();
}

/// Says one line on standard error. Where that is not possible, nothing is lost but the line: `eprintln!` would panic, which
/// turns a full disk under the log file into another exit code and a thread that is gone.
pub(crate) fn say(line: impl fmt::Display) {
    let _unheard = writeln!(io::stderr(), "{line}");
}

fn targets(level: Level) -> Targets {
    let less = match level {
        Level::TRACE => Level::DEBUG,
        Level::DEBUG => Level::INFO,
        Level::INFO | Level::WARN => Level::WARN,
        Level::ERROR => Level::ERROR,
    };
    Targets::new().with_default(level).with_targets(TALKATIVE.map(|target| (target, less)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_talk_less_than_the_server() {
        let info = targets(Level::INFO);
        assert!(info.would_enable("harmony_server::serve", &Level::INFO));
        assert!(!info.would_enable("harmony_server::serve", &Level::DEBUG));
        assert!(!info.would_enable("raft", &Level::INFO));
        assert!(info.would_enable("raft", &Level::WARN));
        assert!(targets(Level::TRACE).would_enable("h2::codec", &Level::DEBUG));
    }
}
