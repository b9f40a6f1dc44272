//! The few styles that texts use.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

use super::plain::plain;

pub(super) const STRONG: Style = Style::new().bold();
pub(super) const FAINT: Style = Style::new().dimmed();
pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(super) const DOUBTFUL: Style = AnsiColor::Yellow.on_default().bold();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();

/// `text` in a style. It is part of a line, so a line break in it comes from a name, and is written out.
pub(super) fn paint(style: Style, text: impl Display) -> String {
    format!("{style}{}{style:#}", plain(&text.to_string()))
}
