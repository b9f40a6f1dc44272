//! Patterns over module paths: `{name}` stands for a text, the same wherever the name is the same, and `*` for a text without
//! a separator, bound by its position.
//!
//! A pattern is matched against one path, and what it bound is put into another pattern: that is all a pairing needs. Every
//! way to match is tried, up to a limit, because `{a}.{b}` has several; the caller decides which of them mean something.

use std::collections::BTreeSet;

/// Ways to match a path that are tried before giving up: real paths need a few dozen.
const LIMIT: usize = 20_000;

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Text(String),
    /// A variable; `*` is one that is named by its position and stays within a component.
    Variable {
        name: String,
        within: bool,
    },
}

/// What the variables of a pattern stand for.
pub(crate) type Binding = Vec<(String, String)>;

impl Pattern {
    /// The pattern that `text` writes.
    ///
    /// # Errors
    /// What is wrong with it: an empty text, an open or empty brace, two stars in a row.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("pattern {text:?}: {what}"));
        let (mut tokens, mut stars) = (Vec::new(), 0);
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}', '*']) {
            if at > 0 {
                tokens.push(Token::Text(rest[..at].to_owned()));
            }
            let after = &rest[at + 1..];
            match rest.as_bytes()[at] {
                b'{' => {
                    let Some((name, after)) = after.split_once('}') else {
                        return wrong("a brace is not closed");
                    };
                    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                        return wrong("a variable needs a name of letters and digits, as in {p}");
                    }
                    tokens.push(Token::Variable {
                        name: name.to_owned(),
                        within: false,
                    });
                    rest = after;
                }
                b'*' => {
                    if after.starts_with('*') {
                        return wrong("\"**\" is not supported, {p} may span several components");
                    }
                    tokens.push(Token::Variable {
                        name: format!("*{stars}"),
                        within: true,
                    });
                    stars += 1;
                    rest = after;
                }
                _ => return wrong("a brace is closed that is not open"),
            }
        }
        if !rest.is_empty() {
            tokens.push(Token::Text(rest.to_owned()));
        }
        if tokens.is_empty() {
            return wrong("it is empty");
        }
        Ok(Self { tokens })
    }

    /// Whether it is one path and nothing else.
    pub(crate) fn is_literal(&self) -> bool {
        self.tokens.iter().all(|t| matches!(t, Token::Text(_)))
    }

    /// The names of its variables; stars have names by position.
    pub(crate) fn variables(&self) -> BTreeSet<&str> {
        let names = self.tokens.iter().filter_map(|token| match token {
            Token::Text(_) => None,
            Token::Variable { name, .. } => Some(name.as_str()),
        });
        names.collect()
    }

    /// The path that it writes under a binding of all its variables.
    pub(crate) fn fill(&self, binding: &Binding) -> String {
        let text = |token: &Token| match token {
            Token::Text(text) => text.clone(),
            Token::Variable { name, .. } => {
                let bound = binding.iter().find(|(bound, _)| bound == name);
                bound.map(|(_, text)| text.clone()).unwrap_or_default()
            }
        };
        self.tokens.iter().map(text).collect()
    }

    /// Every way in which it matches the whole of `path`; `None` if there are too many to try.
    pub(crate) fn matches(&self, path: &str) -> Option<Vec<Binding>> {
        let mut search = Search {
            found: Vec::new(),
            steps: 0,
        };
        search.run(&self.tokens, path, &mut Vec::new())?;
        Some(search.found)
    }
}

struct Search {
    found: Vec<Binding>,
    steps: usize,
}

impl Search {
    fn run(&mut self, tokens: &[Token], path: &str, binding: &mut Binding) -> Option<()> {
        self.steps += 1;
        if self.steps > LIMIT {
            return None;
        }
        let Some((token, tokens)) = tokens.split_first() else {
            if path.is_empty() {
                self.found.push(binding.clone());
            }
            return Some(());
        };
        let (name, within) = match token {
            Token::Text(text) => {
                return match path.strip_prefix(text.as_str()) {
                    Some(path) => self.run(tokens, path, binding),
                    None => Some(()),
                };
            }
            Token::Variable { name, within } => (name, *within),
        };
        if let Some((_, bound)) = binding.iter().find(|(bound, _)| bound == name) {
            return match path.strip_prefix(bound.as_str()) {
                Some(path) => self.run(tokens, path, binding),
                None => Some(()),
            };
        }
        // What the rest of the pattern writes in any case bounds what a variable can take.
        for (start, c) in path.char_indices() {
            if within && matches!(c, '.' | '/') {
                break;
            }
            let end = start + c.len_utf8();
            binding.push((name.clone(), path[..end].to_owned()));
            let done = match tokens.first() {
                Some(Token::Text(text)) if !path[end..].starts_with(text.as_str()) => Some(()),
                None if end < path.len() => Some(()),
                _ => self.run(tokens, &path[end..], binding),
            };
            binding.pop();
            done?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(pattern: &str, path: &str) -> Vec<String> {
        let found = Pattern::parse(pattern).unwrap().matches(path).unwrap();
        let text = |binding: &Binding| {
            let parts: Vec<_> = binding.iter().map(|(n, t)| format!("{n}={t}")).collect();
            parts.join(" ")
        };
        found.iter().map(text).collect()
    }

    #[test]
    fn a_variable_is_not_empty_may_span_components_and_keeps_its_text() {
        assert_eq!(ways("{p}.conv{n}", "a.b.conv1"), ["p=a.b n=1"]);
        assert!(ways("{p}.conv{n}", "conv1").is_empty());
        assert!(ways("{p}.conv{n}", "a.conv").is_empty());
        assert_eq!(ways("{p}.x.{p}", "a.b.x.a.b"), ["p=a.b"]);
        assert_eq!(ways("{a}.{b}", "x.y.z"), ["a=x b=y.z", "a=x.y b=z"]);
    }

    #[test]
    fn a_star_stays_within_a_component() {
        assert_eq!(ways("s.*.conv", "s.3.conv"), ["*0=3"]);
        assert!(ways("s.*.conv", "s.3.1.conv").is_empty());
        assert!(ways("s/*", "s/a/b").is_empty());
        let from = Pattern::parse("s.*.*.conv").unwrap();
        let to = Pattern::parse("s.*.*.bn").unwrap();
        let found = from.matches("s.0.1.conv").unwrap();
        assert_eq!(to.fill(&found[0]), "s.0.1.bn");
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "{", "a}", "{}", "{a b}", "a.**.b"] {
            assert!(Pattern::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn too_many_ways_are_not_tried() {
        let pattern = Pattern::parse("{a}{b}{c}{d}{e}{f}").unwrap();
        assert_eq!(pattern.matches(&"x".repeat(400)), None);
    }
}
