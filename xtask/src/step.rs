//! Steps of a longer check: each is run, a failure does not stop the others, and the end says what failed and how to
//! run it alone.

use std::error::Error;
use std::process::Command;
use std::time::{Duration, Instant};

/// One thing to run.
pub(crate) struct Step {
    /// What it shows.
    pub(crate) name: String,
    /// How a person runs it alone, in the workspace's root.
    pub(crate) by_hand: String,
    run: Box<dyn FnOnce() -> Result<(), Box<dyn Error>>>,
}

impl Step {
    /// A step inside of this program.
    pub(crate) fn new(
        name: &str,
        by_hand: &str,
        run: impl FnOnce() -> Result<(), Box<dyn Error>> + 'static,
    ) -> Self {
        Self { name: name.to_owned(), by_hand: by_hand.to_owned(), run: Box::new(run) }
    }

    /// A command line, split at blanks; `NAME=value` words at its start set the environment, `_` in them stands for a
    /// blank.
    pub(crate) fn command(name: &str, line: &str) -> Self {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let by_hand = line.split_whitespace().map(shown).collect::<Vec<_>>().join(" ");
        Self::new(name, &by_hand, move || execute(&words))
    }
}

/// Runs all steps, prints a summary, and fails when one did.
///
/// # Errors
/// Names the steps that failed.
pub(crate) fn run_all(title: &str, steps: Vec<Step>) -> Result<(), Box<dyn Error>> {
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    for step in steps {
        println!("\n=== {title}: {} ({})", step.name, step.by_hand);
        let (result, took) = timed(step.run);
        let mark = if result.is_ok() { "ok    " } else { "FAILED" };
        lines.push(format!("  {mark} {:>5} s  {}", took.as_secs(), step.name));
        if let Err(error) = result {
            eprintln!("{error}");
            lines.push(format!("                  run it alone: {}", step.by_hand));
            failed.push(step.name);
        }
    }
    println!("\n=== {title}: summary\n{}", lines.join("\n"));
    if failed.is_empty() { Ok(()) } else { Err(format!("{title}: failed: {}", failed.join(", ")).into()) }
}

#[expect(clippy::disallowed_methods, reason = "how long a step took is shown, nothing depends on it")]
fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = run();
    (result, start.elapsed())
}

fn execute(words: &[String]) -> Result<(), Box<dyn Error>> {
    let settings = words.iter().take_while(|word| is_setting(word)).count();
    let [program, arguments @ ..] = &words[settings..] else {
        return Err("a step without a command".into());
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(crate::root()?);
    for setting in &words[..settings] {
        let (name, value) = setting.split_once('=').ok_or("a setting without a value")?;
        command.env(name, value.replace('_', " "));
    }
    let status = command.status().map_err(|error| format!("{program}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", words.join(" ")).into()) }
}

fn is_setting(word: &str) -> bool {
    word.split_once('=')
        .is_some_and(|(name, _)| name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'))
}

fn shown(word: &str) -> String {
    match word.split_once('=') {
        Some((name, value)) if is_setting(word) => format!("{name}='{}'", value.replace('_', " ")),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_failure_stops_no_other_step_and_is_named() {
        let ran = Rc::new(Cell::new(0));
        let step = |name: &str, result: Result<(), &'static str>| {
            let ran = Rc::clone(&ran);
            Step::new(name, name, move || {
                ran.set(ran.get() + 1);
                result.map_err(Into::into)
            })
        };
        let steps = vec![step("a", Ok(())), step("b", Err("broken")), step("c", Ok(()))];
        assert_eq!(run_all("t", steps).unwrap_err().to_string(), "t: failed: b");
        assert_eq!(ran.get(), 3);
        run_all("t", vec![step("a", Ok(()))]).unwrap();
    }

    #[test]
    fn a_command_line_sets_its_environment() {
        let step = Step::command("docs", "RUSTDOCFLAGS=-D_warnings cargo doc");
        assert_eq!(step.by_hand, "RUSTDOCFLAGS='-D warnings' cargo doc");
        let ok = Step::command("env", "HARMONY_XTASK_TEST=a_b printenv HARMONY_XTASK_TEST");
        let fails = Step::command("env", "printenv HARMONY_XTASK_TEST_THAT_IS_NOT_SET");
        run_all("t", vec![ok]).unwrap();
        run_all("t", vec![fails]).unwrap_err();
        let missing = run_all("t", vec![Step::command("none", "harmony-no-such-program")]);
        assert!(missing.is_err());
    }
}
