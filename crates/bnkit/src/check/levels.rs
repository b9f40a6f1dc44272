//! How serious a finding is: each rule has a level of its own, and a team may set another one by code.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{rules, suppress};
use crate::{Error, Result};

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Not looked for.
    Allow,
    /// Worth knowing; nothing needs to be done.
    Note,
    /// Worth a look before shipping.
    Warning,
    /// The answer is no.
    Error,
}

impl Level {
    /// The word that reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Levels other than the rules' own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Levels {
    chosen: BTreeMap<String, Level>,
    deny_warnings: bool,
}

impl Levels {
    /// Sets the level of a code; what was set before is forgotten.
    ///
    /// # Errors
    /// If there is no rule of this code; the message names the nearest ones.
    pub fn set(&mut self, code: &str, level: Level) -> Result<()> {
        known(code)?;
        self.chosen.insert(code.to_owned(), level);
        Ok(())
    }

    /// Makes an error of everything that would be a warning.
    pub fn deny_warnings(&mut self) {
        self.deny_warnings = true;
    }

    /// The level of a code whose rule says `own`.
    pub fn of(&self, code: &str, own: Level) -> Level {
        match self.chosen.get(code).copied().unwrap_or(own) {
            Level::Warning if self.deny_warnings => Level::Error,
            level => level,
        }
    }
}

/// Whether there is a rule of this code.
///
/// # Errors
/// If there is none; the message names the nearest ones.
pub(super) fn known(code: &str) -> Result<()> {
    /// From this similarity on (0 to 1), a code is worth suggesting.
    const SIMILAR: f64 = 0.75;
    let codes: Vec<&str> = rules().iter().map(|rule| rule.code).collect();
    if codes.contains(&code) {
        return Ok(());
    }
    let nearest = codes
        .into_iter()
        .map(|known| (strsim::jaro_winkler(code, known), known))
        .filter(|(similar, _)| *similar >= SIMILAR)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        Some((_, near)) => format!("did you mean \"{near}\"?"),
        None => format!("as in \"{}\"", suppress::CODE),
    };
    Err(Error::Request(format!(
        "\"{code}\" is no code of a check, {hint}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts_and_warnings_can_be_denied() {
        let mut levels = Levels::default();
        assert_eq!(levels.of("dead-channel", Level::Note), Level::Note);
        levels.set("dead-channel", Level::Error).unwrap();
        levels.set("dead-channel", Level::Warning).unwrap();
        levels.set("tiny-variance", Level::Allow).unwrap();
        assert_eq!(levels.of("dead-channel", Level::Note), Level::Warning);
        levels.deny_warnings();
        assert_eq!(levels.of("dead-channel", Level::Note), Level::Error);
        assert_eq!(levels.of("odd-epsilon", Level::Warning), Level::Error);
        assert_eq!(levels.of("tiny-variance", Level::Warning), Level::Allow);
        assert_eq!(levels.of("not-folded", Level::Note), Level::Note);
    }

    #[test]
    fn an_unknown_code_is_an_error_that_helps() {
        let error = Levels::default()
            .set("tiny-varience", Level::Error)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"tiny-varience\" is no code of a check, did you mean \"tiny-variance\"?"
        );
        assert!(Levels::default().set("into-conv", Level::Error).is_err());
    }
}
