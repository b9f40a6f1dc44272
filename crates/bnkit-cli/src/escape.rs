//! Text of files on its way to a terminal: control characters are shown instead of obeyed.
//!
//! Names in a model may hold anything, such as sequences that move the cursor over what was said before, or marks that
//! turn the direction of writing. JSON and YAML have their own escapes; this is for text.

use std::borrow::Cow;
use std::iter::Peekable;
use std::str::CharIndices;

/// One line: line breaks are escaped, too, so that a name cannot begin a message of its own.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// A text of several lines: line breaks, tabs and the styles of our own printers stay.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escape(text, |character| matches!(character, '\n' | '\t'))
}

fn escape(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(is_unseen) {
        return text.into();
    }
    let styled = stays('\n');
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text.char_indices().peekable();
    while let Some((at, character)) = rest.next() {
        if !is_unseen(character) || stays(character) {
            out.push(character);
        } else if let Some(style) = style(&text[at..]).filter(|_| styled) {
            out.push_str(style);
            skip(&mut rest, at + style.len());
        } else {
            match character {
                '\n' | '\r' | '\t' => out.extend(character.escape_default()),
                other => out.extend(other.escape_unicode()),
            }
        }
    }
    out.into()
}

fn skip(rest: &mut Peekable<CharIndices<'_>>, until: usize) {
    while rest.next_if(|&(at, _)| at < until).is_some() {}
}

/// The style at the start of `text`: bold, faint, a colour, or back to none. Nothing that hides what follows.
fn style(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("\u{1b}[")?;
    let (number, _) = inner.split_once('m')?;
    let plain = matches!(number, "" | "0" | "1" | "2" | "3" | "4");
    let colour = matches!(number.as_bytes(), [b'3' | b'9', b'0'..=b'7']);
    (plain || colour).then(|| &text[..number.len() + 3])
}

/// Whether a terminal would obey this character, or not show it where it stands.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_a_line() {
        assert!(matches!(line("conv1.weight „ü“ 漢"), Cow::Borrowed(_)));
        assert_eq!(line("a\nerror: b\r\0"), r"a\nerror: b\r\u{0}");
        assert_eq!(line("\u{1b}[31mred"), r"\u{1b}[31mred");
        assert_eq!(line("\u{9b}2J\u{7f}"), r"\u{9b}2J\u{7f}");
        assert_eq!(line("\u{202e}gpj.exe\u{200b}"), r"\u{202e}gpj.exe\u{200b}");
    }

    #[test]
    fn a_text_keeps_its_lines_and_styles() {
        let own = "\u{1b}[1mBold\u{1b}[0m\n\tx \u{1b}[32mgreen\u{1b}[0m\n";
        assert_eq!(text(own), own);
        assert_eq!(text("\u{1b}[2Jx"), r"\u{1b}[2Jx");
        assert_eq!(text("\u{1b}[8mhidden"), r"\u{1b}[8mhidden");
        assert_eq!(text("\u{1b}]0;title\u{7}"), r"\u{1b}]0;title\u{7}");
        assert_eq!(text("done\rgone"), r"done\rgone");
        assert_eq!(text("\u{1b}"), r"\u{1b}");
        assert_eq!(text("\u{1b}[1é"), r"\u{1b}[1é");
    }
}
