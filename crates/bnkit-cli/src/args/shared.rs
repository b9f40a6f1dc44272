//! Options that every command has.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, ValueEnum};

use super::report::ReportFile;

#[derive(Debug, Args)]
#[command(next_help_heading = "Shared options")]
pub(crate) struct Shared {
    /// How the result is written to stdout
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Format,

    /// Write the result to FILE too: .json, .yaml, .md, .html, .xml (JUnit) or .sarif (repeatable; an older report is replaced)
    #[arg(long = "report", global = true, value_name = "FILE",
          value_parser = PathBufValueParser::new().try_map(ReportFile::new))]
    pub(crate) reports: Vec<ReportFile>,

    /// Read options from a YAML file; what the command line says wins
    ///
    /// A section per command, with the long names of its options as keys:
    ///
    ///   fold:
    ///     skip: ["/head/*"]
    ///     samples: 8
    ///     require: end-to-end
    ///
    /// Paths in it are relative to the current folder.
    #[arg(long, global = true, value_name = "FILE", verbatim_doc_comment)]
    pub(crate) config: Option<PathBuf>,

    /// Replace a model that exists already
    #[arg(long, global = true)]
    pub(crate) force: bool,

    /// No progress and no text report; errors and warnings stay
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Say everything: no list is cut short
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,

    /// Use N threads [default: one per core]
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,

    /// Whether the text is coloured
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Color,
}

/// The forms in which a result can go to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs: the schemas of docs/cli.md
    Json,
    /// The same as YAML
    Yaml,
    /// Annotations for GitHub Actions
    Github,
}

/// When text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    Always,
    Never,
}

impl From<Color> for anstream::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}
