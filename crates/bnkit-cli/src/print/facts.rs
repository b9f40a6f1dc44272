//! What every result says of itself, whatever it is about: the command, the program, the files, the verdict.
//!
//! Read from the serialised result, so that a new command has its report files without a line of code: `schema`, `tool`, `input`
//! (or `a` and `b`), `output`, `verification.verdict`, `valid` and `failure` mean the same in every schema.

use serde::Serialize;
use serde_json::Value;

/// The facts of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// As in "fold".
    pub(crate) command: String,
    /// Of the program.
    pub(crate) version: String,
    /// What was read first, what was written last.
    pub(crate) files: Vec<File>,
    /// "equivalent", "valid" …; "passed" or "failed" where nothing else is said.
    pub(crate) verdict: String,
    /// Why the exit code is 1.
    pub(crate) failure: Option<String>,
}

/// A file of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct File {
    /// "input", "a", "b" or "output".
    pub(crate) role: &'static str,
    pub(crate) path: String,
    pub(crate) sha256: Option<String>,
    pub(crate) bytes: Option<u64>,
}

impl Facts {
    /// # Errors
    /// If the result cannot be serialised.
    pub(crate) fn of(result: &(impl Serialize + ?Sized)) -> serde_json::Result<Self> {
        Ok(Self::read(&serde_json::to_value(result)?))
    }

    fn read(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let schema = value["schema"].as_str().unwrap_or_default();
        let command = schema.strip_prefix("bnkit.").unwrap_or(schema);
        let command = command.split('/').next().unwrap_or_default();
        let failure = text(&value["failure"]);
        let verdict = match (
            text(&value["verification"]["verdict"]),
            value["valid"].as_bool(),
        ) {
            (Some(verdict), _) => verdict,
            (None, Some(true)) => "valid".to_owned(),
            (None, Some(false)) => "not-valid".to_owned(),
            (None, None) if failure.is_some() => "failed".to_owned(),
            (None, None) => "passed".to_owned(),
        };
        let file = |role: &'static str| {
            let file = &value[role];
            Some(File {
                role,
                path: text(&file["path"])?,
                sha256: text(&file["sha256"]),
                bytes: file["bytes"].as_u64(),
            })
        };
        Self {
            command: match command {
                "unfolded" => "unfold",
                other => other,
            }
            .to_owned(),
            version: text(&value["tool"]["version"])
                .unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            files: ["input", "a", "b", "output"]
                .into_iter()
                .filter_map(file)
                .collect(),
            verdict,
            failure,
        }
    }

    /// The file that findings are about: what was read, of two the second.
    pub(crate) fn subject(&self) -> Option<&File> {
        let with = |role| self.files.iter().find(|file| file.role == role);
        with("b").or_else(|| with("input"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;

    #[test]
    fn a_fold_and_a_comparison() {
        let facts = Facts::of(&samples::fold()).unwrap();
        assert_eq!(
            (facts.command.as_str(), facts.verdict.as_str()),
            ("fold", "equivalent")
        );
        let roles: Vec<_> = facts.files.iter().map(|file| file.role).collect();
        assert_eq!(roles, ["input", "output"]);
        assert_eq!(facts.subject().unwrap().path, "net.onnx");
        assert_eq!(facts.failure, None);
        let facts = Facts::of(&samples::verify()).unwrap();
        assert_eq!(facts.subject().unwrap().path, "b.onnx");
    }

    #[test]
    fn what_says_nothing_passed() {
        let facts = Facts::read(&serde_json::json!({"schema": "bnkit.unfolded/1"}));
        assert_eq!(
            (facts.command.as_str(), facts.verdict.as_str()),
            ("unfold", "passed")
        );
        let failed = Facts::read(&serde_json::json!({"failure": "no"}));
        assert_eq!(failed.verdict, "failed");
    }
}
