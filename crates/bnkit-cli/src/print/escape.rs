//! Names in XML and HTML: characters of the markup are written as references, and characters that XML 1.0 cannot hold at all (control
//! characters, U+FFFE, U+FFFF), or that turn the direction of writing, are written out as `\u{…}`.

use super::plain::plain;

/// Text for the content and the attributes of XML and HTML.
pub(crate) fn markup(text: &str) -> String {
    let plain = plain(text);
    let mut out = String::with_capacity(plain.len());
    for letter in plain.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{fffe}' | '\u{ffff}' => out.push_str(&letter.escape_unicode().to_string()),
            _ => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_markup_and_no_control_character_is_left() {
        assert_eq!(
            markup("<a b='c' d=\"e\">&amp;"),
            "&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;amp;"
        );
        assert_eq!(
            markup("a\u{0}\u{1b}\u{7f}\u{9b}\u{202e}\u{fffe}\n"),
            "a\\u{0}\\u{1b}\\u{7f}\\u{9b}\\u{202e}\\u{fffe}\\n"
        );
        assert_eq!(markup("Größe 中 🦀"), "Größe 中 🦀");
    }
}
