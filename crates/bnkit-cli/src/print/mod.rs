//! How results look: as text for people, as Markdown, as annotations for GitHub. JSON and YAML follow from the types.
//!
//! Everything here turns a finished result into characters; nothing is decided here.

mod calibrate;
mod check;
mod convert;
mod diff;
pub(crate) mod explain;
pub(crate) mod fold;
pub(crate) mod github;
pub(crate) mod inspect;
mod norms;
mod pair;
pub(crate) mod plain;
pub(crate) mod proof;
#[cfg(test)]
pub(crate) mod samples;
mod style;
mod table;
mod unfold;
pub(crate) mod units;
mod verify;
mod warnings;

use std::io::{self, Write};

use serde::Serialize;

use github::Annotation;

/// How much a text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Long lists are cut.
    Short,
    /// Everything.
    Full,
}

impl Detail {
    /// How many entries a list shows.
    fn limit(self) -> usize {
        match self {
            Self::Short => 20,
            Self::Full => usize::MAX,
        }
    }
}

/// A result that can be written in every form.
pub(crate) trait Document: Serialize {
    /// For people, with styles as ANSI codes (the stream drops them where they do not belong).
    fn text(&self, out: &mut dyn Write, detail: Detail) -> io::Result<()>;

    /// As a page.
    fn markdown(&self, out: &mut dyn Write) -> io::Result<()>;

    /// As annotations of a GitHub workflow.
    fn annotations(&self) -> Vec<Annotation>;

    /// What a person should be warned of, on stderr.
    fn warnings(&self, _detail: Detail) -> Vec<String> {
        Vec::new()
    }

    /// The codes of warnings that the text tells itself.
    fn told(&self) -> &'static [&'static str] {
        &[]
    }
}

/// What a text says below a list that was cut.
fn more(hidden: usize) -> Option<String> {
    (hidden > 0).then(|| format!("… and {hidden} more (--verbose lists all)"))
}
