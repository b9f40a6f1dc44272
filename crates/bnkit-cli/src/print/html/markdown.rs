//! The Markdown form of a result as HTML: only what our own pages use (headings, tables, lists, paragraphs, fenced blocks, `code`, **bold**,
//! *italic*, sections that fold out). Everything is escaped first, so a name can look odd at worst; there are no links and no other HTML.

use super::table::{breakable, table};
use crate::print::escape::markup;

/// The title (the first heading) and the rest, without sections whose headings are in `replaced`.
pub(super) fn render(text: &str, replaced: &[&str]) -> (String, String) {
    let (mut title, mut out) = (String::new(), String::new());
    let (mut section, mut left_out) = ("Facts".to_owned(), false);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some((level, heading)) = heading(line) {
            if level == 1 && title.is_empty() {
                title = heading.to_owned();
                continue;
            }
            left_out = replaced.contains(&heading);
            section = heading.to_owned();
            if !left_out {
                let level = level.max(2);
                out += &format!("<h{level}>{}</h{level}>\n", inline(heading));
            }
            continue;
        }
        if left_out || line.trim().is_empty() {
            continue;
        }
        if let Some(name) = summary(line) {
            out += &format!("<details><summary>{}</summary>\n", inline(name));
        } else if line == "</details>" {
            out += "</details>\n";
        } else if line.starts_with("```") {
            out += "<pre>";
            for code in lines.by_ref().take_while(|line| !line.starts_with("```")) {
                out += &format!("{}\n", markup(code));
            }
            out += "</pre>\n";
        } else if line.starts_with("| ") {
            let header: Vec<String> = cells(line).iter().map(|cell| inline(cell)).collect();
            let mut rows = Vec::new();
            while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
                if !row.starts_with("| ---") && !row.starts_with("|---") {
                    rows.push(cells(row).iter().map(|cell| data(cell)).collect());
                }
            }
            out += &table(&section, &header, &rows);
        } else if let Some(first) = line.strip_prefix("- ") {
            out += &format!("<ul>\n<li>{}</li>\n", inline(first));
            while let Some(item) = lines.next_if(|line| line.starts_with("- ")) {
                out += &format!("<li>{}</li>\n", inline(&item[2..]));
            }
            out += "</ul>\n";
        } else {
            let mut paragraph = inline(line);
            let goes_on = |line: &&str| {
                !line.trim().is_empty()
                    && !line.starts_with(['#', '|', '-', '`'])
                    && *line != "</details>"
            };
            while let Some(more) = lines.next_if(goes_on) {
                paragraph += &format!("\n{}", inline(more));
            }
            out += &format!("<p>{paragraph}</p>\n");
        }
    }
    (title, out)
}

/// Our own fold-out sections, the only element that is one.
fn summary(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("<details><summary>")?;
    rest.strip_suffix("</summary>")
}

fn heading(line: &str) -> Option<(usize, &str)> {
    let level = line
        .chars()
        .take_while(|letter| *letter == '#')
        .count()
        .min(4);
    let text = line.get(level..)?.strip_prefix(' ')?;
    (level > 0).then(|| (level, text.trim()))
}

/// The cells of a row; `\|` is a bar.
fn cells(row: &str) -> Vec<String> {
    let row = row.trim().trim_start_matches('|');
    let row = row.strip_suffix('|').unwrap_or(row);
    let mut cells = vec![String::new()];
    let mut letters = row.chars().peekable();
    while let Some(letter) = letters.next() {
        let last = cells.last_mut().expect("there is one");
        match letter {
            '\\' if letters.peek() == Some(&'|') => last.extend(letters.next()),
            '|' => cells.push(String::new()),
            _ => last.push(letter),
        }
    }
    cells.iter().map(|cell| cell.trim().to_owned()).collect()
}

fn data(cell: &str) -> String {
    let number = cell.trim_end_matches([' ', '%']).replace(',', "");
    match number.parse::<f64>() {
        Ok(value) if value.is_finite() => {
            format!("<td class=\"n\" data-v=\"{value:e}\">{}</td>", inline(cell))
        }
        _ => format!("<td>{}</td>", inline(cell)),
    }
}

/// Marks within a line. A mark without its partner is text.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*']) {
        let (before, from) = rest.split_at(at);
        out += &breakable(&markup(before));
        let mark = ["**", "`", "*"]
            .into_iter()
            .find(|mark| from.starts_with(mark))
            .unwrap_or("*");
        let inner = &from[mark.len()..];
        let end = inner.find(mark).filter(|end| *end > 0);
        let Some(end) = end else {
            out += &markup(mark);
            rest = inner;
            continue;
        };
        let content = &inner[..end];
        out += &match mark {
            "`" => format!("<code>{}</code>", breakable(&markup(content))),
            "**" => format!("<strong>{}</strong>", inline(content)),
            _ => format!("<em>{}</em>", markup(content)),
        };
        rest = &inner[end + mark.len()..];
    }
    out + &breakable(&markup(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_markdown() {
        let text = "# Title\n\nA **bold** `c<d` line\ngoes on\n\n## List\n\n- one\n- two\n\n## Table\n\n| a | \\|b\\| |\n| --- | --- |\n| `x` | 1,024 |\n";
        let (title, html) = render(text, &["List"]);
        assert_eq!(title, "Title");
        assert!(
            html.starts_with(
                "<p>A <strong>bold</strong> <code>c&lt;d</code> line\ngoes on</p>\n<h2>Table</h2>\n"
            ),
            "{html}"
        );
        assert!(
            html.contains("<th scope=\"col\" class=\"n\">|b|</th>"),
            "{html}"
        );
        assert!(
            html.contains("<td><code>x</code></td><td class=\"n\" data-v=\"1.024e3\">1,024</td>"),
            "{html}"
        );
        assert!(!html.contains("one"), "{html}");
    }

    #[test]
    fn a_lonely_mark_is_text() {
        assert_eq!(inline("2 * 3 ` x"), "2 * 3 ` x");
        assert_eq!(inline("**"), "**");
        assert_eq!(inline("a*b*c"), "a<em>b</em>c");
        assert_eq!(
            inline("`<script>` *<b>* **<i>**"),
            "<code>&lt;script&gt;</code> <em>&lt;b&gt;</em> <strong>&lt;i&gt;</strong>"
        );
    }

    #[test]
    fn fenced_blocks_stay_as_they_are() {
        let (_, html) = render("```\na  <b>\n| x |\n```\nend\n", &[]);
        assert_eq!(html, "<pre>a  &lt;b&gt;\n| x |\n</pre>\n<p>end</p>\n");
    }
}
