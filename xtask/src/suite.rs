//! The whole test suite, with `cargo nextest` where it is installed and `cargo test` where not.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// What the tests came to, over all test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs every test of the workspace: examples in documents first, then unit and integration tests, whose summary is
/// the last thing printed.
///
/// # Errors
/// A test failed, or nothing could be built.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let mut totals = Totals::default();
    let documents = cargo(&["test", "--workspace", "--doc"], &mut totals);
    let tests = if has_nextest() {
        cargo(&["nextest", "run", "--workspace", "--no-fail-fast"], &mut totals)
    } else {
        cargo(&["test", "--workspace", "--tests", "--examples", "--no-fail-fast"], &mut totals)
    };
    println!("\ntests: {} passed, {} failed, {} ignored", totals.passed, totals.failed, totals.ignored);
    match (documents, tests) {
        (Ok(()), Ok(())) if totals.passed == 0 => Err("no test ran".into()),
        (Ok(()), result) | (result, Ok(())) => result,
        (Err(documents), Err(tests)) => Err(format!("{documents}; {tests}").into()),
    }
}

/// The commands that run the tests of one crate alone.
pub(crate) fn commands_for(package: &str) -> Vec<String> {
    if has_nextest() {
        // It leaves the examples in documents to cargo.
        let documents = format!("cargo test -p {package} --doc");
        vec![documents, format!("cargo nextest run -p {package} --no-fail-fast --no-tests=pass")]
    } else {
        vec![format!("cargo test -p {package} --no-fail-fast")]
    }
}

fn has_nextest() -> bool {
    let mut probe = Command::new("cargo");
    probe.args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// Runs cargo, shows its output as it comes, and adds up the summaries in it.
fn cargo(arguments: &[&str], totals: &mut Totals) -> Result<(), Box<dyn Error>> {
    let line = format!("cargo {}", arguments.join(" "));
    println!("\n--- {line}");
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(crate::root()?).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().map_err(|error| format!("{line}: {error}"))?;
    // The command keeps the write ends open; the reader would never see the end.
    drop(command);
    for text in BufReader::new(reader).split(b'\n') {
        let text = String::from_utf8_lossy(&text?).into_owned();
        println!("{text}");
        totals.add(&text);
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("{line}: {status}").into()) }
}

impl Totals {
    /// Adds a summary line of either runner; any other line changes nothing.
    fn add(&mut self, line: &str) {
        let summary = match line.trim_start() {
            line if line.starts_with("test result: ") => line,
            line if line.starts_with("Summary [") => {
                line.split_once("tests run:").map_or("", |(_, counts)| counts)
            }
            _ => return,
        };
        for count in summary.split([';', ',', '.']) {
            // The word behind the number: `3 passed`, `3 passed (1 slow)`.
            let mut words = count.split_whitespace().skip_while(|word| word.parse::<u64>().is_err());
            let (Some(number), Some(word)) =
                (words.next().and_then(|word| word.parse::<u64>().ok()), words.next())
            else {
                continue;
            };
            match word {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "timed" => self.failed += number,
                "ignored" | "skipped" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summaries_of_both_runners_add_up() {
        let mut totals = Totals::default();
        for line in [
            "running 3 tests",
            "test result: ok. 66 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
            "     Summary [   0.145s] 75 tests run: 70 passed (1 slow), 4 failed, 1 timed out, 3 skipped",
            "test a::b ... ok",
        ] {
            totals.add(line);
        }
        assert_eq!(totals, Totals { passed: 137, failed: 7, ignored: 5 });
    }
}
