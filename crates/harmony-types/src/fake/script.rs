//! Golden scripts: a story told as commands and the trace they must give.
//!
//! ```text
//! # A comment. It belongs to the commands below it.
//! put a=1
//! crash
//! ---
//! recovered to index 1
//!
//! get a
//! ---
//! 1
//! ```
//!
//! Blocks are separated by blank lines. A block is comments (`#`), command lines, a line `---`, and the lines of the
//! trace; a block of comments alone is allowed. `HARMONY_BLESS=1` rewrites the traces and nothing else; the diff is
//! then read like code.
//!
//! ```
//! # use harmony_types::fake::script;
//! let script = "add 1 2\n---\n3\n";
//! script::check_text(script, |command| {
//!     let numbers = command.split(' ').skip(1);
//!     numbers.map(|number| number.parse::<u64>().expect("a number")).sum::<u64>().to_string()
//! })
//! .expect("the trace is as written");
//! ```

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Set to `1`, it rewrites traces instead of comparing them.
pub const BLESS_VARIABLE: &str = "HARMONY_BLESS";

const SEPARATOR: &str = "---";

/// Runs the script in `path` and compares each trace. `run` gets the command lines of one block, without comments,
/// and returns its trace; it keeps what it needs between blocks itself.
///
/// With `HARMONY_BLESS=1` the file is rewritten instead.
///
/// # Panics
/// The file cannot be read or is malformed; a trace differs: the message shows the difference.
pub fn check(path: impl AsRef<Path>, run: impl FnMut(&str) -> String) {
    let path = path.as_ref();
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let blessed = std::env::var(BLESS_VARIABLE).is_ok_and(|value| value == "1");
    if blessed {
        let text = bless_text(&text, run).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    } else if let Err(error) = check_text(&text, run) {
        panic!(
            "{}: {error}\n(if the new trace is right: {BLESS_VARIABLE}=1, then read the diff)",
            path.display()
        );
    }
}

/// Runs every `*.txt` in `dir`, sorted by name, each with a runner of its own from `start`.
///
/// # Panics
/// As [`check`]; or the directory has no script, which is surely a mistake.
pub fn check_dir<R: FnMut(&str) -> String>(dir: impl AsRef<Path>, mut start: impl FnMut() -> R) {
    let dir = dir.as_ref();
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut scripts: Vec<_> = entries
        .map(|entry| entry.unwrap_or_else(|error| panic!("{}: {error}", dir.display())).path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "{}: no script", dir.display());
    for script in scripts {
        check(script, start());
    }
}

/// Runs a script given as text.
///
/// # Errors
/// The text is malformed, or a trace differs: where, and how.
pub fn check_text(text: &str, mut run: impl FnMut(&str) -> String) -> Result<(), String> {
    for block in parse(text)? {
        let Some(command) = block.command() else { continue };
        let trace = trace_lines(&run(&command), block.line)?;
        if trace != block.trace {
            let diff = diff(&block.trace, &trace);
            return Err(format!(
                "line {}: the trace differs (- written, + now)\n{command}\n---\n{diff}",
                block.line
            ));
        }
    }
    Ok(())
}

/// The script with the traces that `run` gives; comments and commands stay as they are.
///
/// # Errors
/// The text is malformed, or a trace has an empty line.
pub fn bless_text(text: &str, mut run: impl FnMut(&str) -> String) -> Result<String, String> {
    let mut blocks = Vec::new();
    for block in parse(text)? {
        let mut lines: Vec<String> = block.head.iter().map(|line| (*line).to_owned()).collect();
        if let Some(command) = block.command() {
            lines.push(SEPARATOR.to_owned());
            lines.extend(trace_lines(&run(&command), block.line)?);
        }
        blocks.push(lines.join("\n") + "\n");
    }
    Ok(blocks.join("\n"))
}

/// One block; `head` is everything above the separator, `line` where it starts, from 1.
struct Block<'a> {
    line: usize,
    head: Vec<&'a str>,
    trace: Vec<String>,
}

impl Block<'_> {
    /// The commands without comments; `None` for a block of comments alone.
    fn command(&self) -> Option<String> {
        let commands: Vec<&str> = self.head.iter().copied().filter(|line| !is_comment(line)).collect();
        (!commands.is_empty()).then(|| commands.join("\n"))
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn parse(text: &str) -> Result<Vec<Block<'_>>, String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate().peekable();
    while let Some(&(start, first)) = lines.peek() {
        if first.trim().is_empty() {
            lines.next();
            continue;
        }
        let mut body = Vec::new();
        while let Some((_, line)) = lines.next_if(|(_, line)| !line.trim().is_empty()) {
            body.push(line.trim_end());
        }
        let mut halves = body.splitn(2, |line| *line == SEPARATOR);
        let head = halves.next().unwrap_or_default().to_vec();
        let trace = halves.next().map(|lines| lines.iter().map(|line| (*line).to_owned()).collect());
        let block = Block { line: start + 1, head, trace: trace.clone().unwrap_or_default() };
        match (block.command(), &trace) {
            (Some(_), None) => {
                return Err(format!("line {}: the block has no line `{SEPARATOR}`", block.line));
            }
            (None, Some(_)) => {
                return Err(format!("line {}: the block has a trace and no command", block.line));
            }
            _ => blocks.push(block),
        }
    }
    Ok(blocks)
}

/// The lines of a trace as a file keeps them.
fn trace_lines(trace: &str, block_line: usize) -> Result<Vec<String>, String> {
    let lines: Vec<String> = trace.trim_end().lines().map(|line| line.trim_end().to_owned()).collect();
    if lines.iter().any(String::is_empty) {
        return Err(format!(
            "line {block_line}: the trace has an empty line, which would end the block:\n{trace}"
        ));
    }
    Ok(lines)
}

/// A line by line difference: `-` for what was written, `+` for what is now, both with a space for what is in common.
pub fn diff<S: AsRef<str>>(old: &[S], new: &[S]) -> String {
    // common[i][j]: length of the longest common subsequence of old[i..] and new[j..].
    let mut common = vec![vec![0usize; new.len() + 1]; old.len() + 1];
    for (i, before) in old.iter().enumerate().rev() {
        for (j, after) in new.iter().enumerate().rev() {
            let same = before.as_ref() == after.as_ref();
            common[i][j] =
                if same { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let mut text = String::new();
    let mut line =
        |mark: char, line: &S| writeln!(text, "{mark} {}", line.as_ref()).expect("a string takes all");
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i].as_ref() == new[j].as_ref() {
            line(' ', &old[i]);
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i][j + 1] <= common[i + 1][j]) {
            line('-', &old[i]);
            i += 1;
        } else {
            line('+', &new[j]);
            j += 1;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "# About this file.\n\n# Two commands.\nsay a\nsay b\n---\na\nb\n\nquiet\n---\n";

    /// `say X` gives X, anything else gives nothing.
    fn echo(command: &str) -> String {
        command.lines().filter_map(|line| line.strip_prefix("say ")).map(|word| format!("{word}\n")).collect()
    }

    #[test]
    fn a_trace_as_written_passes() {
        check_text(SCRIPT, echo).unwrap();
        check_text("", echo).unwrap();
    }

    #[test]
    fn commands_come_without_comments_and_block_by_block() {
        let mut seen = Vec::new();
        check_text(SCRIPT, |command| {
            seen.push(command.to_owned());
            echo(command)
        })
        .unwrap();
        assert_eq!(seen, ["say a\nsay b", "quiet"]);
    }

    #[test]
    fn a_difference_is_shown_line_by_line() {
        let error = check_text(SCRIPT, |command| echo(command).replace('b', "c")).unwrap_err();
        assert_eq!(error, "line 3: the trace differs (- written, + now)\nsay a\nsay b\n---\n  a\n- b\n+ c\n");
        assert!(check_text(SCRIPT, |_| "a\nb".into()).is_err(), "a trace where none is written");
        assert!(check_text(SCRIPT, |_| String::new()).is_err(), "no trace where one is written");
    }

    #[test]
    fn a_malformed_script_is_refused_with_its_line() {
        assert_eq!(check_text("\nsay a\n", echo).unwrap_err(), "line 2: the block has no line `---`");
        assert!(check_text("# c\n---\na\n", echo).unwrap_err().contains("no command"));
        let empty = check_text("say a\n---\na\n", |_| "a\n\nb".into()).unwrap_err();
        assert!(empty.contains("empty line"), "{empty}");
    }

    #[test]
    fn blessing_rewrites_traces_alone() {
        let stale = "# About this file.\n\n\n# Two commands.\nsay a\nsay b\n---\nold\n\nquiet\n---\nold";
        assert_eq!(bless_text(stale, echo).unwrap(), SCRIPT);
        assert_eq!(bless_text(SCRIPT, echo).unwrap(), SCRIPT);
    }

    #[test]
    fn a_file_is_checked_where_it_lies() {
        check_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts"), || echo);
    }

    #[test]
    #[should_panic(expected = "no script")]
    fn a_directory_without_scripts_is_a_mistake() {
        check_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), || echo);
    }

    #[test]
    fn the_difference_is_the_shortest() {
        let diff = |old: &str, new: &str| {
            diff(&old.split(' ').collect::<Vec<_>>(), &new.split(' ').collect::<Vec<_>>()).replace('\n', ";")
        };
        assert_eq!(diff("a b c", "a c d"), "  a;- b;  c;+ d;");
        assert_eq!(diff("a", "a"), "  a;");
        assert_eq!(diff("x y", "z"), "- x;- y;+ z;");
    }
}
