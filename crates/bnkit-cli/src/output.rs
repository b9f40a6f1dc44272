//! Where everything that is said goes: results to stdout and report files, all else to stderr.
//!
//! A reader that has gone away (`bnkit inspect … | head`) ends the output quietly and changes no exit code.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};

use crate::args::report::{ReportFile, ReportForm};
use crate::args::shared::{Format, Shared};
use crate::print::plain::{Guard, plain, plain_json};
use crate::print::{self, Detail, Document, github};

const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();

/// How the results of one run are to be written.
pub(crate) struct Output {
    format: Format,
    reports: Vec<ReportFile>,
    detail: Detail,
    quiet: bool,
}

impl Output {
    pub(crate) fn new(shared: &Shared) -> Self {
        Self {
            format: shared.format,
            reports: shared.reports.clone(),
            detail: if shared.verbose {
                Detail::Full
            } else {
                Detail::Short
            },
            quiet: shared.quiet,
        }
    }

    /// Whether somebody will read hashes.
    pub(crate) fn wants_hashes(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml) || !self.reports.is_empty()
    }

    /// Whether somebody will look at plots.
    pub(crate) fn wants_plots(&self) -> bool {
        let mut reports = self.reports.iter();
        reports.any(|report| report.form == ReportForm::Html)
    }

    /// Whether a text is not wanted, as long as there is nothing to object to.
    pub(crate) fn quiet(&self) -> bool {
        self.quiet
    }

    /// Finds out now, not after minutes of work, that a report cannot be written or would replace a model.
    pub(crate) fn check(&self, models: &[&Path]) -> anyhow::Result<()> {
        for ReportFile { path, .. } in &self.reports {
            if models.iter().any(|model| same_file(model, path)) {
                bail!("{}: the report would replace a model", path.display());
            }
            folder_exists(path)?;
        }
        Ok(())
    }

    /// Writes a result in every form that was asked for. `--quiet` silences the text, not the other forms.
    pub(crate) fn result(&self, document: &impl Document) -> anyhow::Result<()> {
        for ReportFile { path, form } in &self.reports {
            write_report(document, path, *form)
                .with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        if self.format != Format::Github {
            let text = self.format == Format::Text && !self.quiet;
            let told = |line: &str| {
                let mut codes = document.told().iter();
                codes.any(|code| line.ends_with(&format!("[{code}]")))
            };
            for warning in document.warnings(self.detail) {
                if !(text && told(&warning)) {
                    message(YELLOW, "warning", &warning);
                }
            }
        }
        if self.quiet && self.format == Format::Text {
            return Ok(());
        }
        let stdout = anstream::stdout().lock();
        delivered(self.write(document, &mut BufWriter::new(stdout)))
    }

    fn write(&self, document: &impl Document, out: &mut dyn Write) -> io::Result<()> {
        match self.format {
            Format::Text => document.text(&mut Guard::new(&mut *out), self.detail)?,
            Format::Json => json(document, out)?,
            Format::Yaml => yaml(document, out)?,
            Format::Github => github::write(&document.annotations(), out)?,
        }
        out.flush()
    }
}

/// Writes what is no result but a file of its own (a script, a manual page) to stdout, byte by byte.
pub(crate) fn raw(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    delivered(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// A reader that has gone away is no error.
fn delivered(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("stdout: cannot be written"),
    }
}

fn write_report(document: &impl Document, path: &Path, form: ReportForm) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    match form {
        ReportForm::Json => json(document, &mut file)?,
        ReportForm::Yaml => yaml(document, &mut file)?,
        ReportForm::Markdown => document.markdown(&mut file)?,
        ReportForm::Html => print::html(document, &mut file)?,
        ReportForm::Junit => print::junit(document, &mut file)?,
        ReportForm::Sarif => print::sarif(document, &mut file)?,
    }
    file.flush()
}

fn json(document: &impl Document, out: &mut dyn Write) -> io::Result<()> {
    let text = serde_json::to_string_pretty(document)?;
    writeln!(out, "{}", plain_json(text))
}

fn yaml(document: &impl Document, out: &mut dyn Write) -> io::Result<()> {
    serde_yaml::to_writer(out, document).map_err(io::Error::other)
}

/// Whether two paths lead to the same existing file.
pub(crate) fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// An error if the folder that `path` is to lie in does not exist.
pub(crate) fn folder_exists(path: &Path) -> anyhow::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    match folder {
        Some(folder) if !folder.is_dir() => bail!("{}: there is no such folder", folder.display()),
        _ => Ok(()),
    }
}

/// Tells why the tool could not work.
pub(crate) fn error(error: &anyhow::Error) {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Library errors name their cause in their own text already.
        if !text.ends_with(&cause) {
            text = if text.is_empty() {
                cause
            } else {
                format!("{text}: {cause}")
            };
        }
    }
    message(RED, "error", &text);
}

/// Tells why the answer is no.
pub(crate) fn failed(text: &str) {
    message(RED, "failed", text);
}

/// Tells what the user should know while waiting.
pub(crate) fn note(text: &str) {
    message(YELLOW, "interrupted", text);
}

/// One line on stderr. If that cannot be written, there is nobody left to tell.
fn message(style: Style, kind: &str, text: &str) {
    let text = plain(text);
    let _ = writeln!(anstream::stderr().lock(), "{style}{kind}:{style:#} {text}");
}
