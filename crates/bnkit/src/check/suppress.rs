//! Exceptions: findings that somebody looked at and accepted, with the reason, by code and glob over node names. One that matches
//! nothing is itself a finding: exceptions that outlive their cause hide the next one.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::levels::known;
use super::{Finding, Level};
use crate::explain::{Explanation, Kind};
use crate::glob::Choice;
use crate::{Error, Result};

/// The code of an exception that matches nothing.
pub(super) const CODE: &str = "unused-suppression";
/// Its own level.
pub(super) const LEVEL: Level = Level::Warning;
/// What to do about it.
pub(super) const ACTION: &str = "remove it, or correct its code or glob";

pub(super) const EXPLANATION: Explanation = Explanation {
    code: CODE,
    kind: Kind::Check,
    title: "an exception matches nothing",
    text: "\
A suppression names a code and a glob over node names, and no finding of that code has such a name. Either the cause is gone, or a layer
was renamed and the exception is about something else now.

An exception to a rule that is allowed, or that does not apply to this format, is not judged.",
};

/// An accepted kind of finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suppression {
    /// The code of the rule.
    pub code: String,
    /// A glob over names of nodes (modules of a state dict); `*` matches `/` and `.`, too. Findings about the model as a whole have the
    /// name "".
    pub node: String,
    /// Why it is accepted. It may not be empty.
    pub reason: String,
}

impl Suppression {
    fn check(self) -> Result<Self> {
        known(&self.code)?;
        if self.reason.trim().is_empty() {
            return Err(Error::Request(format!(
                "{}:{}: a suppression needs a reason",
                self.code, self.node
            )));
        }
        Ok(self)
    }
}

/// `CODE:GLOB=REASON`, or the three as YAML or JSON in braces. The glob ends at the first "=".
impl FromStr for Suppression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.trim_start().starts_with('{') {
            let parsed: Result<Self, _> = serde_yaml::from_str(text);
            return parsed
                .map_err(|error| Error::Request(format!("a suppression: {error}")))?
                .check();
        }
        let parts = text.split_once(':').and_then(|(code, rest)| {
            let (node, reason) = rest.split_once('=')?;
            Some((code, node, reason))
        });
        let Some((code, node, reason)) = parts else {
            return Err(Error::Request(format!(
                "\"{text}\" is no suppression; write CODE:GLOB=REASON"
            )));
        };
        let suppression = Self {
            code: code.trim().to_owned(),
            node: node.trim().to_owned(),
            reason: reason.trim().to_owned(),
        };
        suppression.check()
    }
}

/// The exceptions of a check, and which of them were of use.
pub(super) struct Suppressions<'a> {
    all: Vec<One<'a>>,
}

struct One<'a> {
    suppression: &'a Suppression,
    names: Choice,
    used: bool,
    judged: bool,
}

impl<'a> Suppressions<'a> {
    /// # Errors
    /// If a code is unknown, a reason empty, or a glob malformed.
    pub(super) fn new(suppressions: &'a [Suppression]) -> Result<Self> {
        let one = |suppression: &'a Suppression| {
            suppression.clone().check()?;
            Ok(One {
                suppression,
                names: Choice::new(std::slice::from_ref(&suppression.node), &[])?,
                used: false,
                judged: true,
            })
        };
        Ok(Self {
            all: suppressions.iter().map(one).collect::<Result<_>>()?,
        })
    }

    /// Why a finding is accepted, if it is. Every exception that matches counts as used.
    pub(super) fn reason(&mut self, code: &str, node: &str) -> Option<String> {
        let mut reason = None;
        for one in &mut self.all {
            if one.suppression.code == code && one.names.takes(node) {
                one.used = true;
                reason.get_or_insert_with(|| one.suppression.reason.clone());
            }
        }
        reason
    }

    /// A rule that was not asked cannot have used its exceptions.
    pub(super) fn not_asked(&mut self, code: &str) {
        let own = self.all.iter_mut();
        own.filter(|one| one.suppression.code == code)
            .for_each(|one| one.judged = false);
    }

    /// Findings about those that match nothing.
    pub(super) fn unused(&self, level: Level) -> impl Iterator<Item = Finding> {
        let unused = self.all.iter().filter(|one| one.judged && !one.used);
        unused.map(move |One { suppression, .. }| Finding {
            code: CODE,
            level,
            node: String::new(),
            tensor: None,
            channels: None,
            numbers: BTreeMap::new(),
            message: format!(
                "no finding of {} matches \"{}\" ({})",
                suppression.code, suppression.node, suppression.reason
            ),
            action: ACTION,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_maps_say_the_same() {
        let words: Suppression = "not-folded:/head/*= it = what we want".parse().unwrap();
        assert_eq!(
            (words.code.as_str(), words.node.as_str()),
            ("not-folded", "/head/*")
        );
        assert_eq!(words.reason, "it = what we want");
        let map = "{code: not-folded, node: /head/*, reason: it = what we want}";
        assert_eq!(map.parse::<Suppression>().unwrap(), words);
    }

    #[test]
    fn what_is_missing_is_said() {
        let error = |text: &str| text.parse::<Suppression>().unwrap_err().to_string();
        assert!(error("not-folded:*").contains("CODE:GLOB=REASON"));
        assert!(error("not-folded:*=  ").contains("needs a reason"));
        assert!(error("not-fold:*=x").contains("did you mean \"not-folded\""));
        assert!(error("{code: not-folded, nodes: '*', reason: x}").contains("nodes"));
        let broken = Suppression {
            code: "not-folded".to_owned(),
            node: "[".to_owned(),
            reason: "x".to_owned(),
        };
        assert!(Suppressions::new(&[broken]).is_err());
    }
}
