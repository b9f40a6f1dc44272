//! `--only` and `--skip`: which BatchNorms the user chose, by globs over their names.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::{Error, Result};

/// A choice of names. `*` matches any characters, `/` included: node names of exporters are full of them.
#[derive(Debug)]
pub(crate) struct Choice {
    only: Option<GlobSet>,
    skip: GlobSet,
}

impl Choice {
    /// The names that match one of `only` (any name if it is empty) and none of `skip`.
    ///
    /// # Errors
    /// If a glob is malformed.
    pub(crate) fn new(only: &[String], skip: &[String]) -> Result<Self> {
        Ok(Self {
            only: (!only.is_empty()).then(|| set(only)).transpose()?,
            skip: set(skip)?,
        })
    }

    /// Whether a name is chosen.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.is_match(name)) && !self.skip.is_match(name)
    }
}

fn set(globs: &[String]) -> Result<GlobSet> {
    let mut builder = GlobSetBuilder::new();
    for glob in globs {
        let parsed = GlobBuilder::new(glob).literal_separator(false).build();
        builder
            .add(parsed.map_err(|error| Error::Request(format!("bad glob \"{glob}\": {error}")))?);
    }
    builder
        .build()
        .map_err(|error| Error::Request(format!("bad globs: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skip_wins_over_only() {
        let choice = Choice::new(&["/layer*".to_owned()], &["*bn2*".to_owned()]).unwrap();
        assert!(choice.takes("/layer1/0/bn1/BatchNormalization"));
        assert!(!choice.takes("/layer1/0/bn2/BatchNormalization"));
        assert!(!choice.takes("/stem/bn1"));
        assert!(Choice::new(&[], &["[".to_owned()]).is_err());
    }
}
