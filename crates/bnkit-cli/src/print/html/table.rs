//! Tables of a page. They read without a script; with one, headers sort and a field filters.

use crate::print::escape::markup;
use crate::print::page::{Cell, Grid, Look};

/// A table with this many rows can be filtered.
const FILTERED: usize = 8;

/// A grid as a section of its own.
pub(super) fn grid(grid: &Grid) -> String {
    let rows = grid.rows.iter().map(|row| row.iter().map(cell).collect());
    let header: Vec<String> = grid.header.iter().map(|title| markup(title)).collect();
    format!(
        "<section aria-labelledby=\"grid\">\n<h2 id=\"grid\">{}</h2>\n{}</section>\n",
        markup(grid.title),
        table(grid.title, &header, rows.collect())
    )
}

/// Cells are `td` elements, ready to be written.
pub(super) fn table(name: &str, header: &[String], rows: Vec<String>) -> String {
    let titled = header.iter().any(|title| !title.is_empty());
    let class = match rows.len() {
        _ if !titled => "facts",
        FILTERED.. => "sortable filtered",
        3.. => "sortable",
        _ => "",
    };
    let mut out = format!(
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{}\"><table class=\"{class}\">\n",
        markup(name)
    );
    if titled {
        out += "<thead><tr>";
        for title in header {
            match title.is_empty() {
                true => out += "<td></td>",
                false => out += &format!("<th scope=\"col\">{title}</th>"),
            }
        }
        out += "</tr></thead>\n";
    }
    out += "<tbody>\n";
    for row in rows {
        out += &format!("<tr>{row}</tr>\n");
    }
    out + "</tbody></table></div>\n"
}

fn cell(cell: &Cell) -> String {
    let text = markup(&cell.text);
    let number = match cell.number {
        Some(number) if number.is_finite() => format!(" class=\"n\" data-v=\"{number:e}\""),
        Some(_) => " class=\"n\" data-v=\"\"".to_owned(),
        None => String::new(),
    };
    let inner = match cell.look {
        _ if text.is_empty() => text,
        Look::Plain => text,
        Look::Code => format!("<code>{text}</code>"),
        Look::Good => format!("<span class=\"tag good\">{text}</span>"),
        Look::Doubtful => format!("<span class=\"tag doubtful\">{text}</span>"),
        Look::Bad => format!("<span class=\"tag bad\">{text}</span>"),
    };
    format!("<td{number}>{inner}</td>")
}
