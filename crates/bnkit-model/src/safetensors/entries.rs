//! JSON objects whose order counts and whose keys must not repeat: what the headers and indexes of checkpoints are.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};

use crate::error::shown;
use crate::{Error, Result};

/// A value of an object, which may depend on its key.
pub(super) trait Member: Sized {
    /// What to call the place of a value in an error.
    fn place(key: &str) -> String;

    /// Reads the value of `key`.
    fn read<'de, D: Deserializer<'de>>(key: &str, deserializer: D) -> Result<Self, D::Error>;
}

/// Reads an object, in order.
///
/// # Errors
/// If it is no UTF-8 or no object, a key occurs twice, or a value is not what it should be: with its place.
pub(super) fn parse<T: Member>(json: &[u8]) -> Result<Vec<(String, T)>> {
    let json = std::str::from_utf8(json).map_err(|error| {
        let place = error.valid_up_to();
        Error::invalid(format!("not UTF-8 from byte {place} on"))
    })?;
    let parsed: Result<Entries<T>, serde_json::Error> = serde_json::from_str(json);
    parsed
        .map(|entries| entries.0)
        .map_err(|error| Error::invalid(shown(&error.to_string())))
}

/// The members of an object, in order.
pub(super) struct Entries<T>(pub(super) Vec<(String, T)>);

impl<'de, T: Member> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData))
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Member> Visitor<'de> for Members<T> {
    type Value = Entries<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let at = |error: A::Error| A::Error::custom(format!("{}: {error}", T::place(&key)));
            if !keys.insert(key.clone()) {
                return Err(at(A::Error::custom("the name occurs twice")));
            }
            let value = map.next_value_seed(Value(&key, PhantomData)).map_err(at)?;
            members.push((key, value));
        }
        Ok(Entries(members))
    }
}

struct Value<'k, T>(&'k str, PhantomData<T>);

impl<'de, T: Member> DeserializeSeed<'de> for Value<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::read(self.0, deserializer)
    }
}

/// A string.
impl Member for String {
    fn place(key: &str) -> String {
        format!("\"{}\"", shown(key))
    }

    fn read<'de, D: Deserializer<'de>>(_: &str, deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

/// Anything.
impl Member for serde_json::Value {
    fn place(key: &str) -> String {
        format!("\"{}\"", shown(key))
    }

    fn read<'de, D: Deserializer<'de>>(_: &str, deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}
