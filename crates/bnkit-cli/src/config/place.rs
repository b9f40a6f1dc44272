//! Where a key stands in a YAML file.
//!
//! The parser keeps no positions of values, but its errors have one. So the file is read once more, and the reading fails on purpose at
//! the key in question: that is its place, whatever the style of the file.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// Line and column, from 1, of the innermost of `keys`, each of them a key in the mapping of the one before.
pub(super) fn of_key(text: &str, keys: &[String]) -> Option<(usize, usize)> {
    if keys.is_empty() {
        return None;
    }
    let reader = serde_yaml::Deserializer::from_str(text);
    let error = Below { keys }.deserialize(reader).err()?;
    if !error.to_string().contains(FOUND) {
        return None;
    }
    let place = error.location()?;
    Some((place.line(), place.column()))
}

const FOUND: &str = "bnkit: found it";

/// A value in which the first of the keys is looked for.
struct Below<'k> {
    keys: &'k [String],
}

impl<'de> DeserializeSeed<'de> for Below<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Below<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let Some((key, rest)) = self.keys.split_first() else {
            return Ok(());
        };
        let wanted = Key {
            key,
            last: rest.is_empty(),
        };
        while let Some(same) = map.next_key_seed(wanted)? {
            match same {
                true => return map.next_value_seed(Below { keys: rest }),
                false => map.next_value::<IgnoredAny>()?,
            };
        }
        Ok(())
    }
}

/// Whether a key is the one; the last one fails.
#[derive(Clone, Copy)]
struct Key<'k> {
    key: &'k str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        // As text, whatever it looks like.
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, found: &str) -> Result<bool, E> {
        match (found == self.key, self.last) {
            (true, true) => Err(E::custom(FOUND)),
            (same, _) => Ok(same),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, keys: &[&str]) -> Option<(usize, usize)> {
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        of_key(text, &keys)
    }

    #[test]
    fn keys_are_found_in_every_style() {
        let text =
            "# fold: x\nverify: {samples: 1}\nfold:\n  only: [\"samples: 3\"]\n  \"samples\": 2\n";
        assert_eq!(place(text, &["fold"]), Some((3, 1)));
        assert_eq!(place(text, &["fold", "samples"]), Some((5, 3)));
        assert_eq!(place(text, &["verify", "samples"]), Some((2, 10)));
        assert_eq!(place(text, &["verify", "atol"]), None);
        assert_eq!(
            place("é: 1\nfold: {é: 1, x: 2}", &["fold", "x"]),
            Some((2, 14))
        );
        assert_eq!(place("- a", &["a"]), None);
        assert_eq!(place("", &["a"]), None);
        assert_eq!(place("1: {2: 3}", &["1", "2"]), Some((1, 5)));
    }

    #[test]
    fn aliases_do_not_explode() {
        let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (level, before) in ('b'..'k').zip('a'..'j') {
            let item = format!("*{before}, ");
            text += &format!(
                "{level}: &{level} [{}]\n",
                item.repeat(9).trim_end_matches(", ")
            );
        }
        assert_eq!(place(&text, &["k"]), None);
        assert!(serde_yaml::from_str::<serde_yaml::Value>(&text).is_err());
    }
}
