//! Names come from files that others wrote, and a terminal obeys what it is sent. Here is the one place that takes the power
//! from control characters: on the way to stdout and stderr, and in the cells of tables.

use std::fmt::Write as _;
use std::io::{self, Write};

/// The escape sequences of our own styles: nothing else may begin with an ESC.
const OURS: [&str; 6] = [
    "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m",
];

/// The text with control characters, line breaks included, written out: `\n`, `\u{1b}`.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        put(letter, &mut out);
    }
    out
}

/// The same for texts that have lines and styles of ours.
pub(crate) fn plain_lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if let Some(style) = OURS.iter().find(|style| rest.starts_with(**style)) {
            out.push_str(style);
            rest = &rest[style.len()..];
            continue;
        }
        match letter {
            '\n' | '\t' => out.push(letter),
            _ => put(letter, &mut out),
        }
        rest = &rest[letter.len_utf8()..];
    }
    out
}

fn put(letter: char, out: &mut String) {
    match letter {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        _ if letter.is_control() || turns(letter) => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(letter));
        }
        _ => out.push(letter),
    }
}

/// Characters that turn the direction of writing, break lines, or are not seen: with them a name looks like another one.
fn turns(letter: char) -> bool {
    matches!(
        letter,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    )
}

/// JSON without the control characters that JSON itself allows: DEL and C1, which terminals obey, too. They can only stand in strings.
pub(crate) fn plain_json(text: String) -> String {
    if !text.contains(|letter: char| letter.is_control() && letter != '\n') {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => out.push(letter),
            _ if letter.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(letter));
            }
            _ => out.push(letter),
        }
    }
    out
}

/// A writer of text that lets no control character through but line breaks and our own styles, and no line that a log takes for a
/// command: GitHub obeys lines that begin with `::`, or have `##[`, wherever they come from.
pub(crate) struct Guard<W> {
    out: W,
    /// How many colons the line begins with (blanks before them do not count), as long as there was nothing else.
    begun: Option<usize>,
}

impl<W: Write> Guard<W> {
    pub(crate) fn new(out: W) -> Self {
        let begun = Some(0);
        Self { out, begun }
    }

    /// The text with a colon that would begin a command written out.
    fn without_commands(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for letter in text.chars() {
            self.begun = match (letter, self.begun) {
                ('\n', _) => Some(0),
                (':', Some(1)) => {
                    out.push_str("\\u{3a}");
                    self.begun = None;
                    continue;
                }
                (':', Some(0)) => Some(1),
                (' ' | '\t', Some(0)) => Some(0),
                _ => None,
            };
            out.push(letter);
        }
        out.replace("##[", "#\\u{23}[")
    }
}

impl<W: Write> Write for Guard<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        // What is formatted arrives in pieces of whole characters, and a style in one piece.
        let text = plain_lines(&String::from_utf8_lossy(buffer));
        let text = self.without_commands(&text);
        self.out.write_all(text.as_bytes())?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::style::{BAD, DOUBTFUL, FAINT, GOOD, STRONG, paint};

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(
            plain("a\x1b[31mb\r\n\u{9b}2J"),
            "a\\u{1b}[31mb\\r\\n\\u{9b}2J"
        );
        assert_eq!(plain("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(plain("γ ‖Δ‖ 日本.weight"), "γ ‖Δ‖ 日本.weight");
    }

    #[test]
    fn our_styles_pass_and_others_do_not() {
        for style in [STRONG, FAINT, GOOD, DOUBTFUL, BAD] {
            let text = paint(style, "x");
            assert_eq!(plain_lines(&text), text);
        }
        assert_eq!(
            plain_lines("a\n\x1b[2J\x1b]0;t\x07"),
            "a\n\\u{1b}[2J\\u{1b}]0;t\\u{7}"
        );
        let mut out = Vec::new();
        write!(Guard::new(&mut out), "{}\x1b[8m", paint(BAD, "!")).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("\\u{1b}[8m"), "{text:?}");
    }

    #[test]
    fn no_line_is_a_command() {
        let written = |pieces: &[&str]| {
            let mut out = Vec::new();
            let mut guard = Guard::new(&mut out);
            pieces
                .iter()
                .for_each(|piece| write!(guard, "{piece}").unwrap());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(&["::error::x"]), ":\\u{3a}error::x");
        assert_eq!(
            written(&["a\n", "  :", ":warning::x"]),
            "a\n  :\\u{3a}warning::x"
        );
        assert_eq!(written(&["##[error]x"]), "#\\u{23}[error]x");
        for harmless in ["std::vec", "a: b\n: c\n", "## title\n"] {
            assert_eq!(written(&[harmless]), harmless);
        }
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({"name": "\u{9b}2J\u{7f}\x1b"});
        let text = plain_json(serde_json::to_string_pretty(&value).unwrap());
        assert!(
            !text.contains(|it: char| it.is_control() && it != '\n'),
            "{text:?}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
