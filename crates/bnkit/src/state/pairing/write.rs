//! A pairing as a pairing file, to be read by a person.

use std::fmt::Write as _;

use super::{Layout, Pair, Pairing};

const HEADER: &str = "\
# Which layer feeds which BatchNorm. Names and shapes suggest it, the file does not say it: check every pair.
# A pair is right if the BatchNorm reads the layer's output, nobody else does, and both run once.
";

/// The YAML of a pairing file that makes the same pairs. Shapes, notes and the BatchNorms that are left are comments.
pub fn to_yaml(pairing: &Pairing) -> String {
    let mut out = HEADER.to_owned();
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{text}");
    };
    if let Some(preset) = pairing.preset {
        line(format_args!("# Preset: {preset}"));
    }
    for note in &pairing.notes {
        line(format_args!("# Note: {}", comment(note)));
    }
    let common = common(&pairing.pairs);
    match common {
        Some(epsilon) => line(format_args!("\neps: {}", number(epsilon))),
        None if pairing.pairs.iter().any(|pair| pair.epsilon.is_none()) => {
            line(format_args!(
                "\n# eps: 1e-5  # not known: say what the network was built with"
            ));
        }
        None => line(format_args!("")),
    }
    let writable = |pair: &&Pair| !unwritable(pair);
    let head = match pairing.pairs.iter().any(|pair| writable(&pair)) {
        true => "pairs:",
        false => "pairs: []",
    };
    line(format_args!("{head}"));
    for pair in pairing.pairs.iter().filter(writable) {
        if let Some(note) = &pair.note {
            line(format_args!("  # {}", comment(note)));
        }
        let key = match pair.layer.shape.len() {
            2 => "linear",
            _ => "conv",
        };
        let layer = scalar(&pair.layer.module);
        line(format_args!("  - {key}: {layer}  # {:?}", pair.layer.shape));
        let bn = scalar(&pair.batch_norm.module);
        line(format_args!(
            "    bn: {bn}  # [{}]",
            pair.batch_norm.channels
        ));
        if let (Some(epsilon), None) = (pair.epsilon, common) {
            line(format_args!("    eps: {}", number(epsilon)));
        }
        if pair.layer.layout == Layout::Transposed {
            line(format_args!("    transposed: true"));
            if pair.layer.groups != 1 {
                line(format_args!("    groups: {}", pair.layer.groups));
            }
        }
    }
    for pair in pairing.pairs.iter().filter(|pair| unwritable(pair)) {
        line(format_args!(
            "# Not written: {:?} → {:?}, a pairing file cannot name modules with {{, }} or *",
            pair.layer.module, pair.batch_norm.module
        ));
    }
    if !pairing.left.is_empty() {
        line(format_args!("\n# Left, {} BatchNorms:", pairing.left.len()));
    }
    for left in &pairing.left {
        line(format_args!(
            "#   bn: {}  # [{}] {}",
            scalar(&left.batch_norm.module),
            left.batch_norm.channels,
            comment(&left.reason)
        ));
    }
    out
}

/// The ε of all pairs, if they have the same.
fn common(pairs: &[Pair]) -> Option<f64> {
    let first = pairs.first()?.epsilon?;
    pairs
        .iter()
        .all(|pair| pair.epsilon == Some(first))
        .then_some(first)
}

/// A module whose name would be read as a pattern.
fn unwritable(pair: &Pair) -> bool {
    let is_pattern = |module: &str| module.is_empty() || module.contains(['{', '}', '*']);
    is_pattern(&pair.layer.module) || is_pattern(&pair.batch_norm.module)
}

/// A number that YAML reads back as the same one.
fn number(value: f64) -> String {
    format!("{value:e}")
}

/// Text for a comment: on one line.
fn comment(text: &str) -> String {
    let one_line = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(one_line).collect()
}

/// A name as YAML: plain if nothing could be read into it, otherwise quoted.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.contains(|c: char| matches!(c, '.' | '_' | '/') || c.is_ascii_digit())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c));
    if plain {
        return text.to_owned();
    }
    let mut quoted = String::from('"');
    for c in text.chars() {
        // Writing into a String cannot fail.
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            ' '..='~' => write!(quoted, "{c}"),
            c => write!(quoted, "\\U{:08X}", u32::from(c)),
        };
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::state::groups::Entry;
    use crate::state::pairing::{PresetChoice, from_file, propose};

    fn entry(name: &str, shape: &[usize]) -> Entry {
        Entry {
            name: name.to_owned(),
            shape: shape.to_vec(),
            is_float: true,
        }
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_pairs() {
        let mut entries = Vec::new();
        for (layer, shape, bn) in [
            ("up.0", &[8, 4, 2, 2][..], "up.1"),
            ("0.a\u{1}\"b\n: #", &[4, 3, 3, 3], "0.a\u{1}\"b\n: #n"),
            ("true", &[4, 3], "null"),
            ("left", &[5, 5], "stays"),
        ] {
            entries.push(entry(&format!("{layer}.weight"), shape));
            let channels = if layer == "left" { 5 } else { 4 };
            entries.push(entry(&format!("{bn}.running_mean"), &[channels]));
            entries.push(entry(&format!("{bn}.running_var"), &[channels]));
        }
        let text = r#"
eps: 1e-3
pairs:
  - {conv: up.0, bn: up.1, transposed: true, eps: 1.0000000001e-5}
  - {conv: "0.a\u0001\"b\n: #", bn: "0.a\u0001\"b\n: #n"}
  - {linear: "true", bn: "null"}
"#;
        let first = from_file(text, Path::new("a.yaml"), &entries).unwrap();
        assert_eq!(first.pairs.len(), 3);
        assert_eq!(first.pairs[0].layer.layout, Layout::Transposed);
        let yaml = to_yaml(&first);
        let again = from_file(&yaml, Path::new("b.yaml"), &entries).unwrap();
        assert_eq!(first, again, "{yaml}");
        assert!(
            yaml.contains("bn: \"stays\"  # [5] the pairing file"),
            "{yaml}"
        );
    }

    #[test]
    fn nothing_found_is_a_file_without_pairs() {
        let none = propose(&[], PresetChoice::Auto).unwrap();
        let yaml = to_yaml(&none);
        assert_eq!(
            from_file(&yaml, Path::new("a.yaml"), &[]).unwrap().pairs,
            []
        );
    }
}
