//! Metrics that a command of the user's computes.

use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// How much of a command's output a message shows.
const TAIL: usize = 2000;

/// Why a scorer gave no numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("scorer `{command}` {what}")]
pub struct ScorerError {
    /// The command.
    pub command: String,
    /// What is wrong, with the end of what it wrote.
    pub what: String,
}

/// Runs `command` with a dump folder as its last argument and reads the JSON object of numbers that it prints.
/// Infinities and NaN are the strings "inf", "-inf", "nan".
///
/// The command is run by the shell, so that it may hold arguments, quotes and variables.
///
/// # Errors
/// A command that cannot be run or that fails, with the end of what it wrote to stderr; output that is not one JSON
/// object of numbers.
pub fn score(command: &str, dump: &Path) -> Result<Vec<(String, f64)>, ScorerError> {
    let wrong = |what: String| ScorerError { command: command.into(), what };
    if command.trim().is_empty() {
        return Err(wrong("is empty".into()));
    }
    let output = shell(command, dump).output().map_err(|e| wrong(format!("cannot be run: {e}")))?;
    let stderr = end_of(&output.stderr);
    if !output.status.success() {
        let said =
            if stderr.is_empty() { "wrote nothing to stderr".into() } else { format!("wrote:\n{stderr}") };
        return Err(wrong(format!("failed ({}) and {said}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let not_json = |why: String| {
        let printed = if text.trim().is_empty() { "nothing".into() } else { end_of(&output.stdout) };
        wrong(format!(
            "must print one JSON object of numbers; {why}; it printed: {printed}; write other messages to stderr"
        ))
    };
    let value: Value = serde_json::from_str(&text).map_err(|e| not_json(e.to_string()))?;
    let Value::Object(object) = value else {
        return Err(not_json("this is another kind of value".into()));
    };
    let number = |v: &Value| match v {
        Value::Number(n) => n.as_f64(),
        Value::String(s) => match s.as_str() {
            "inf" => Some(f64::INFINITY),
            "-inf" => Some(f64::NEG_INFINITY),
            "nan" => Some(f64::NAN),
            _ => None,
        },
        _ => None,
    };
    object
        .iter()
        .map(|(key, v)| match number(v) {
            Some(n) => Ok((key.clone(), n)),
            None => Err(not_json(format!("{key:?} is {v}"))),
        })
        .collect()
}

#[cfg(not(windows))]
fn shell(command: &str, dump: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{command} \"$1\"")).arg("scorer").arg(dump);
    shell
}

#[cfg(windows)]
fn shell(command: &str, dump: &Path) -> Command {
    use std::os::windows::process::CommandExt;
    let mut shell = Command::new("cmd");
    shell.raw_arg(format!("/S /C \"{command} \"{}\"\"", dump.display()));
    shell
}

fn end_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim();
    let mut start = text.len().saturating_sub(TAIL);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    if start == 0 { text.to_owned() } else { format!("... {}", &text[start..]) }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_the_folder_and_gives_numbers() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let folder = dir.path().join("with space");
        std::fs::create_dir(&folder).expect("creates");
        std::fs::write(folder.join("n"), "{\"ap\": 0.5, \"n\": 3, \"snr\": \"inf\"}").expect("writes");
        let script = dir.path().join("show it.sh");
        std::fs::write(&script, "cat \"$1/n\"\necho progress >&2\n").expect("writes");
        let got = score(&format!("sh '{}'", script.display()), &folder);
        assert_eq!(got, Ok(vec![("ap".into(), 0.5), ("n".into(), 3.0), ("snr".into(), f64::INFINITY)]));
    }

    #[test]
    fn what_is_not_an_object_of_numbers_is_refused_with_what_was_printed() {
        for (command, parts) in [
            ("echo Traceback >&2; exit 3; echo", ["exit status: 3", "Traceback"]),
            ("no-such-scorer", ["failed", "not found"]),
            ("true", ["one JSON object", "nothing"]),
            ("echo '{\"a\": NaN}' #", ["one JSON object", "NaN"]),
            ("echo '[1]' #", ["another kind", "[1]"]),
            ("echo '{\"a\": true}' #", ["\"a\" is true", "stderr"]),
            ("echo '{\"a\": \"high\"}' #", ["\"a\" is \"high\"", "stderr"]),
            (" ", ["scorer", "is empty"]),
        ] {
            let e = score(command, Path::new("dump")).expect_err(command).to_string();
            assert!(parts.iter().all(|p| e.contains(p)), "{command}: {e}");
        }
    }

    #[test]
    fn only_the_end_of_a_long_message_is_shown() {
        let long = "\u{e4}".repeat(5000);
        assert!(end_of(long.as_bytes()).len() <= TAIL + 4);
    }
}
