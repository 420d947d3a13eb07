//! `--auto-compaction-mode` and `--auto-compaction-retention`.

use std::time::Duration;

use super::Check;
use crate::client::args::duration_of;

/// How much history is kept when it is compacted without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// What was current in this time.
    Period(Duration),
    /// So many revisions.
    Revisions(u64),
}

impl Check {
    /// As etcd reads them; a retention of 0 is none.
    pub(super) fn auto_compaction(
        &mut self,
        mode: Option<&str>,
        retention: Option<&str>,
    ) -> Option<AutoCompaction> {
        const RETENTION: &str = "auto-compaction-retention";
        let text = retention.unwrap_or("0");
        match mode {
            None | Some("" | "periodic") => {
                let hours =
                    text.parse().ok().and_then(|hours: u32| Duration::from_hours(1).checked_mul(hours));
                match hours.or_else(|| duration_of(text)) {
                    Some(period) => (!period.is_zero()).then_some(AutoCompaction::Period(period)),
                    None => {
                        self.mistake(
                            RETENTION,
                            format!("is {text:?}: use hours, or a time like 30m or 1h30m"),
                        );
                        None
                    }
                }
            }
            Some("revision") => match text.parse() {
                Ok(count) => (count != 0).then_some(AutoCompaction::Revisions(count)),
                Err(_) => {
                    self.mistake(RETENTION, format!("is {text:?}: use a number of revisions"));
                    None
                }
            },
            Some(other) => {
                self.mistake("auto-compaction-mode", format!("is {other:?}: use periodic or revision"));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mode: Option<&str>, retention: Option<&str>) -> (Option<AutoCompaction>, Vec<String>) {
        let mut check = Check::default();
        (check.auto_compaction(mode, retention), check.mistakes)
    }

    #[test]
    fn a_retention_is_hours_a_time_or_a_number_of_revisions() {
        const HOUR: Duration = Duration::from_hours(1);
        for (mode, retention, expected) in [
            (None, None, None),
            (None, Some("0"), None),
            (Some("periodic"), Some("0s"), None),
            (Some("revision"), Some("0"), None),
            (None, Some("8"), Some(AutoCompaction::Period(8 * HOUR))),
            (Some("periodic"), Some("1h30m"), Some(AutoCompaction::Period(HOUR * 3 / 2))),
            (Some("periodic"), Some("100ms"), Some(AutoCompaction::Period(HOUR / 36_000))),
            (Some("revision"), Some("1000"), Some(AutoCompaction::Revisions(1_000))),
        ] {
            assert_eq!(read(mode, retention), (expected, Vec::new()), "{mode:?} {retention:?}");
        }
    }

    #[test]
    fn what_is_neither_is_refused_with_what_to_do() {
        for (mode, retention, mistake) in [
            (None, "x", "--auto-compaction-retention is \"x\": use hours, or a time like 30m or 1h30m"),
            (None, "-1", "--auto-compaction-retention is \"-1\": use hours, or a time like 30m or 1h30m"),
            (Some("revision"), "1h", "--auto-compaction-retention is \"1h\": use a number of revisions"),
            (Some("revisions"), "1", "--auto-compaction-mode is \"revisions\": use periodic or revision"),
        ] {
            assert_eq!(read(mode, Some(retention)), (None, vec![mistake.to_owned()]));
        }
    }
}
