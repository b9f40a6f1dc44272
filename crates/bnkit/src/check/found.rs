//! What a rule says: where, in which channels, with which numbers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Finding, Level};
use crate::report::Evidence;

/// Which channels of a BatchNorm a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Channels {
    /// How many.
    pub affected: usize,
    /// Of how many.
    pub of: usize,
    /// The first of them, counted from 0.
    pub first: usize,
}

impl Channels {
    /// The channels of `of` that `affected` says yes to; `None` if there are none.
    pub(super) fn that(of: usize, affected: impl Fn(usize) -> bool) -> Option<Self> {
        let mut channels = (0..of).filter(|&channel| affected(channel));
        let first = channels.next()?;
        Some(Self {
            affected: 1 + channels.count(),
            of,
            first,
        })
    }

    /// All of them.
    pub(super) fn all(of: usize) -> Self {
        Self {
            affected: of,
            of,
            first: 0,
        }
    }
}

impl std::fmt::Display for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.affected, self.of) {
            (1, 1) => f.write_str("its one channel"),
            (1, of) => write!(f, "1 of {of} channels"),
            (affected, of) if affected == of => write!(f, "all {of} channels"),
            (affected, of) => write!(f, "{affected} of {of} channels"),
        }
    }
}

/// What a rule found in one place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    node: String,
    message: String,
    tensor: Option<String>,
    channels: Option<Channels>,
    numbers: BTreeMap<&'static str, Evidence>,
}

impl Found {
    /// Something about a node (a module of a state dict; "" for the model as a whole).
    pub(super) fn at(node: &str, message: impl Into<String>) -> Self {
        Self {
            node: node.to_owned(),
            message: message.into(),
            tensor: None,
            channels: None,
            numbers: BTreeMap::new(),
        }
    }

    /// About this tensor. One without a name is not spoken of.
    pub(super) fn tensor(self, name: &str) -> Self {
        Self {
            tensor: (!name.is_empty()).then(|| name.to_owned()),
            ..self
        }
    }

    pub(super) fn channels(self, channels: Channels) -> Self {
        Self {
            channels: Some(channels),
            ..self
        }
    }

    /// With a number (or name) that the sentence is about.
    pub(super) fn with(mut self, key: &'static str, value: impl Into<Evidence>) -> Self {
        self.numbers.insert(key, value.into());
        self
    }

    pub(super) fn into_finding(
        self,
        code: &'static str,
        level: Level,
        action: &'static str,
    ) -> Finding {
        Finding {
            code,
            level,
            node: self.node,
            tensor: self.tensor,
            channels: self.channels,
            numbers: self.numbers,
            message: self.message,
            action,
        }
    }
}

/// A number of a sentence, as short as it may be: three digits.
pub(super) fn number(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || (1e-3..1e4).contains(&magnitude) {
        let digits = 2 - magnitude.max(1e-3).log10().floor() as i32;
        let text = format!("{value:.*}", digits.clamp(0, 6) as usize);
        return match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        };
    }
    format!("{value:.1e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (1.0, "1"),
            (316.227, "316"),
            (0.012_34, "0.0123"),
            (1234.5, "1234"),
            (1e-5, "1.0e-5"),
            (123_456.0, "1.2e5"),
            (-0.5, "-0.5"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn channels_are_counted() {
        let even = Channels::that(5, |channel| channel % 2 == 1);
        assert_eq!(
            even,
            Some(Channels {
                affected: 2,
                of: 5,
                first: 1
            })
        );
        assert_eq!(Channels::that(5, |_| false), None);
        assert_eq!(even.map(|it| it.to_string()).unwrap(), "2 of 5 channels");
        assert_eq!(Channels::all(3).to_string(), "all 3 channels");
    }
}
