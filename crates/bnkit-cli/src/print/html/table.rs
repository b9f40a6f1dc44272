//! Tables of a page. They read without a script; with one, headers sort and a field filters.

use crate::print::escape::markup;
use crate::print::page::{Cell, Grid, Look};
use crate::print::units::grouped;

/// A table with this many rows can be filtered.
const FILTERED: usize = 8;
/// With this many, it scrolls within the page and its header stays in sight.
const TALL: usize = 60;
/// A table shows this many rows at most: a browser takes seconds to lay out more, and nobody reads them here.
const MOST: usize = 2000;
/// A name of more bytes than this may be broken.
const LONG: usize = 28;

/// A grid as a section of its own.
pub(super) fn grid(grid: &Grid) -> String {
    let rows: Vec<Vec<String>> = grid
        .rows
        .iter()
        .map(|row| row.iter().map(cell).collect())
        .collect();
    let header: Vec<String> = grid.header.iter().map(|title| markup(title)).collect();
    format!(
        "<section>\n<h2>{}</h2>\n{}</section>\n",
        markup(grid.title),
        table(grid.title, &header, &rows)
    )
}

/// Cells are `td` elements, ready to be written.
pub(super) fn table(name: &str, header: &[String], rows: &[Vec<String>]) -> String {
    let titled = header.iter().any(|title| !title.is_empty());
    let scroll = match rows.len() {
        TALL.. => "scroll tall",
        _ => "scroll",
    };
    let class = match rows.len() {
        _ if !titled => "facts",
        FILTERED.. => "sortable filtered",
        3.. => "sortable",
        _ => "",
    };
    let mut out = format!(
        "<div class=\"{scroll}\" role=\"group\" tabindex=\"0\" aria-label=\"{}\"><table class=\"{class}\">\n",
        markup(name)
    );
    if titled {
        out += "<thead><tr>";
        for (column, title) in header.iter().enumerate() {
            let mut cells = rows.iter().map(|row| row.get(column));
            let numeric = cells.all(|cell| cell.is_none_or(|cell| is_number(cell)));
            let class = match numeric && !rows.is_empty() {
                true => " class=\"n\"",
                false => "",
            };
            match title.is_empty() {
                true => out += "<td></td>",
                false => out += &format!("<th scope=\"col\"{class}>{title}</th>"),
            }
        }
        out += "</tr></thead>\n";
    }
    out += "<tbody>\n";
    for row in &rows[..rows.len().min(MOST)] {
        out += &format!("<tr>{}</tr>\n", row.concat());
    }
    out += "</tbody></table></div>\n";
    if let Some(hidden @ 1..) = rows.len().checked_sub(MOST) {
        out += &format!(
            "<p class=\"note\">… and {} more rows, which are left out of the page: the JSON report has all.</p>\n",
            grouped(hidden as u64)
        );
    }
    out
}

/// A number, or nothing.
fn is_number(cell: &str) -> bool {
    cell.starts_with("<td class=\"n\"") || cell == "<td></td>"
}

/// Long names may break behind a slash; short ones do not break at all.
pub(super) fn breakable(escaped: &str) -> String {
    match escaped.len() {
        ..=LONG => escaped.to_owned(),
        _ => escaped.replace('/', "/<wbr>"),
    }
}

fn cell(cell: &Cell) -> String {
    let text = breakable(&markup(&cell.text));
    let number = match cell.number {
        Some(number) if number.is_finite() => format!(" class=\"n\" data-v=\"{number:e}\""),
        Some(_) => " class=\"n\" data-v=\"\"".to_owned(),
        None => String::new(),
    };
    let inner = match cell.look {
        _ if text.is_empty() => text,
        Look::Plain => text,
        Look::Code if text.len() <= LONG => format!("<code class=\"short\">{text}</code>"),
        Look::Code => format!("<code>{text}</code>"),
        Look::Good => format!("<span class=\"tag good\">{text}</span>"),
        Look::Doubtful => format!("<span class=\"tag doubtful\">{text}</span>"),
        Look::Bad => format!("<span class=\"tag bad\">{text}</span>"),
    };
    format!("<td{number}>{inner}</td>")
}
