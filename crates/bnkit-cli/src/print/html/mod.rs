//! The report that a team looks at: one HTML file, without a network, in light and dark, on a phone and on paper.
//!
//! Verdict, cards, plots and the table of all layers come from [`Page`]; everything else is the Markdown form. A command that says nothing
//! about its page has one all the same.

mod bins;
mod chart;
mod markdown;
mod scale;
mod table;

use std::io::{self, Write};

use super::escape::markup;
use super::facts::Facts;
use super::page::{Card, Page};
use super::units::bytes;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// Nothing is loaded, nothing is sent: what a hostile name could want is not there.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

pub(super) fn write(facts: &Facts, page: &Page, text: &str, out: &mut dyn Write) -> io::Result<()> {
    // The header says it already.
    let failed = |line: &&str| line.starts_with("**Failed:**");
    let text: Vec<&str> = text.lines().filter(|line| !failed(line)).collect();
    let (title, body) = markdown::render(&text.join("\n"), page.replaced);
    let command = markup(&facts.command);
    let title = match title.as_str() {
        "" => format!("bnkit {command}"),
        title => markup(title),
    };
    let subject = facts.subject();
    let name = subject.map_or_else(String::new, |file| format!(" · {}", markup(&file.path)));
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <title>{title}{name}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>"
    )?;
    writeln!(
        out,
        "<header>\n<p class=\"tool\">bnkit {command}{name}</p>\n<h1>{title}</h1>\n{}</header>\n<main>",
        verdict(facts)
    )?;
    out.write_all(cards(&page.cards).as_bytes())?;
    out.write_all(chart::section(&page.charts).as_bytes())?;
    if let Some(grid) = &page.grid {
        out.write_all(table::grid(grid).as_bytes())?;
    }
    if !body.is_empty() {
        writeln!(out, "<section>\n<h2>Details</h2>\n{body}</section>")?;
    }
    writeln!(
        out,
        "</main>\n<footer>{}</footer>\n<script>\n{SCRIPT}</script>\n</body>\n</html>",
        footer(facts)
    )
}

/// The answer, with a sign beside the colour.
fn verdict(facts: &Facts) -> String {
    let word = facts.verdict.replace('-', " ");
    let (class, sign) = match (&facts.failure, facts.verdict.as_str()) {
        (Some(_), _) | (None, "not-equivalent" | "failed" | "not-valid") => ("bad", "✗"),
        (None, "equivalent-local" | "skipped") => ("doubtful", "!"),
        (None, _) => ("good", "✓"),
    };
    let (answer, why) = match &facts.failure {
        Some(why) => ("Failed", format!("<p>{}</p>\n", markup(why))),
        None => ("Passed", String::new()),
    };
    let word = match word.as_str() {
        "passed" | "failed" => answer.to_owned(),
        word => format!("{answer}: {word}"),
    };
    format!(
        "<p class=\"verdict {class}\"><span aria-hidden=\"true\">{sign}</span> {}</p>\n{why}",
        markup(&word)
    )
}

fn cards(cards: &[Card]) -> String {
    if cards.is_empty() {
        return String::new();
    }
    let cards: String = cards
        .iter()
        .map(|card| {
            let note = match card.note.as_str() {
                "" => String::new(),
                note => format!("<dd class=\"note\">{}</dd>", markup(note)),
            };
            format!(
                "<div><dt>{}</dt><dd class=\"value\">{}</dd>{note}</div>\n",
                markup(card.title),
                markup(&card.value)
            )
        })
        .collect();
    format!("<dl class=\"cards\">\n{cards}</dl>\n")
}

/// What the reader needs to find the files again.
fn footer(facts: &Facts) -> String {
    let files: String = facts
        .files
        .iter()
        .map(|file| {
            let size = file.bytes.map(|size| format!(", {}", bytes(size)));
            let hash = file
                .sha256
                .as_ref()
                .map(|hash| format!(", SHA-256 <code>{}</code>", markup(hash)));
            format!(
                "<p>{} <code>{}</code>{}{}</p>\n",
                file.role,
                markup(&file.path),
                size.unwrap_or_default(),
                hash.unwrap_or_default()
            )
        })
        .collect();
    format!("\n{files}<p>bnkit {}</p>\n", markup(&facts.version))
}

#[cfg(test)]
mod tests;
