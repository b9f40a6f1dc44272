//! YAML files, before a parser sees them: their length and their nesting, in which the time of the parser grows with the square.

use std::path::Path;

use bnkit_model::source::read_text;
use bnkit_model::{Error as ModelError, Limits};

use crate::Result;

/// The text of a YAML file.
///
/// # Errors
/// If it cannot be read, is no UTF-8, or exceeds the limits `yaml_bytes` or `yaml_depth`; with the file.
pub fn read(path: &Path) -> Result<String> {
    let text = read_text(path, Limits::get().yaml_bytes)?;
    check_depth(&text).map_err(|message| ModelError::invalid(message).in_file(path))?;
    Ok(text)
}

/// Refuses a text in which more brackets are open at once than the limit `yaml_depth` allows. Those in quotes and comments count,
/// too: it is no parser, and nobody leaves that many of them open.
///
/// # Errors
/// What is wrong.
pub(crate) fn check_depth(text: &str) -> Result<(), String> {
    let most = Limits::get().yaml_depth;
    let mut depth = 0u64;
    for letter in text.bytes() {
        match letter {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > most {
            return Err(format!("it is nested more than {most} brackets deep"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_may_be_nested_and_many() {
        assert!(check_depth(&"[]{}".repeat(10_000)).is_ok());
        assert!(check_depth(&"]".repeat(10_000)).is_ok());
        assert!(check_depth(&format!("{}{}", "[".repeat(256), "]".repeat(256))).is_ok());
        assert!(check_depth(&"[{".repeat(129)).unwrap_err().contains("256"));
    }
}
