//! How results look: as text for people, as Markdown, as annotations for GitHub. JSON and YAML follow from the types.
//!
//! Everything here turns a finished result into characters; nothing is decided here.

mod accuracy;
mod calibrate;
mod check;
mod convert;
mod diff;
mod escape;
pub(crate) mod explain;
mod facts;
pub(crate) mod finding;
pub(crate) mod fold;
pub(crate) mod github;
mod html;
pub(crate) mod inspect;
mod junit;
mod norms;
mod page;
mod pair;
pub(crate) mod plain;
pub(crate) mod proof;
mod release;
#[cfg(test)]
pub(crate) mod samples;
mod sarif;
mod style;
mod table;
mod unfold;
pub(crate) mod units;
mod verify;
mod warnings;

use std::io::{self, Write};

use serde::Serialize;

use facts::Facts;
use finding::{Case, Finding};
use github::{Annotation, Level};
use page::Page;

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

    /// The whole result in one line, and how loud that is; none if the findings say it all.
    fn summary(&self) -> Option<(Level, String)> {
        None
    }

    /// What is said of single places: annotations and SARIF follow from it.
    fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// What was looked at, as a test report has it.
    fn cases(&self) -> Vec<Case> {
        Vec::new()
    }

    /// What a page shows beyond the text.
    fn page(&self) -> Page {
        Page::default()
    }

    /// As annotations of a GitHub workflow.
    fn annotations(&self) -> Vec<Annotation> {
        let facts = Facts::of(self).unwrap_or_default();
        let file = facts.subject().map_or("", |file| file.path.as_str());
        let mut all = finding::annotations(file, &self.findings());
        if let Some((level, text)) = self.summary() {
            all.extend(github::by_code(
                level,
                file,
                [(facts.command.as_str(), text)],
            ));
        }
        all
    }

    /// What a person should be warned of, on stderr.
    fn warnings(&self, _detail: Detail) -> Vec<String> {
        Vec::new()
    }

    /// The codes of warnings that the text tells itself.
    fn told(&self) -> &'static [&'static str] {
        &[]
    }
}

/// Writes a result as JUnit XML.
pub(crate) fn junit(document: &impl Document, out: &mut dyn Write) -> io::Result<()> {
    let facts = Facts::of(document)?;
    let summary = document.summary().map(|(_, text)| text).unwrap_or_default();
    junit::write(&facts, &summary, &document.cases(), out)
}

/// Writes a result as SARIF.
pub(crate) fn sarif(document: &impl Document, out: &mut dyn Write) -> io::Result<()> {
    sarif::write(&Facts::of(document)?, &document.findings(), out)
}

/// Writes a result as a page of its own.
pub(crate) fn html(document: &impl Document, out: &mut dyn Write) -> io::Result<()> {
    let mut text = Vec::new();
    document.markdown(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    html::write(&Facts::of(document)?, &document.page(), &text, out)
}

/// What a text says below a list that was cut.
fn more(hidden: usize) -> Option<String> {
    (hidden > 0).then(|| format!("… and {hidden} more (--verbose lists all)"))
}
