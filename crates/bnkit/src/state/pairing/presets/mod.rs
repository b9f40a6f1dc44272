//! Naming schemes that are known, one file each, one line each in [`SCHEMES`].
//!
//! A scheme is a list of architectures. An architecture is recognised by modules that must be there and, unless it is
//! `open`, by its completeness: every BatchNorm in its scope must be named by one of its rules, and fit. So a network
//! that only resembles it (the same names, BatchNorm before the convolution) is not taken for it.

mod flax;
mod keras;
mod mmdet;
mod timm;
mod torchvision;
mod ultralytics;

use super::index::Index;
use crate::state::groups::Naming;

/// All schemes, in the order in which they win where two recognise as much.
pub(crate) const SCHEMES: [&Scheme; 6] = [
    &torchvision::SCHEME,
    &timm::SCHEME,
    &ultralytics::SCHEME,
    &mmdet::SCHEME,
    &keras::SCHEME,
    &flax::SCHEME,
];

/// A naming scheme.
#[derive(Debug)]
pub(crate) struct Scheme {
    /// The name of the preset.
    pub(crate) name: &'static str,
    /// How its tensors are named.
    pub(crate) naming: Naming,
    /// Its architectures, special ones first.
    pub(crate) architectures: &'static [Architecture],
}

/// A family of networks whose modules have the same names.
#[derive(Debug)]
pub(crate) struct Architecture {
    /// What it is called in notes.
    pub(crate) name: &'static str,
    /// Layers that must be there, below a common prefix. The first one finds the prefix.
    pub(crate) markers: &'static [&'static str],
    /// Modules that must not be there.
    pub(crate) absent: &'static [&'static str],
    /// Which layer feeds which BatchNorm.
    pub(crate) rules: &'static [Rule],
    /// BatchNorms that no layer feeds, and why. They come before the rules.
    pub(crate) leaves: &'static [(&'static str, &'static str)],
    /// What is known about ε.
    pub(crate) epsilon: Epsilon,
    /// Whether there may be BatchNorms that no rule names.
    pub(crate) open: bool,
}

impl Architecture {
    /// What most architectures have in common.
    const BASE: Self = Self {
        name: "",
        markers: &[],
        absent: &[],
        rules: &[],
        leaves: &[],
        epsilon: Epsilon::Unknown(""),
        open: false,
    };
}

/// How a layer's name gives the name of its BatchNorm. The patterns are those of pairing files.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// By pattern.
    Named {
        layer: &'static str,
        batch_norm: &'static str,
        /// Modules that must be there.
        with: &'static [&'static str],
        /// Modules that must not be there.
        without: &'static [&'static str],
        /// The layer is a ConvTranspose (without groups).
        transposed: bool,
    },
    /// The layer at index i of a Sequential, the BatchNorm at i + 1.
    Next {
        /// The BatchNorms that this is about.
        batch_norm: &'static str,
    },
}

impl Rule {
    /// A rule without conditions.
    pub(crate) const fn named(layer: &'static str, batch_norm: &'static str) -> Self {
        Self::when(layer, batch_norm, &[], &[])
    }

    /// A rule that holds with some modules and without others.
    pub(crate) const fn when(
        layer: &'static str,
        batch_norm: &'static str,
        with: &'static [&'static str],
        without: &'static [&'static str],
    ) -> Self {
        Self::Named {
            layer,
            batch_norm,
            with,
            without,
            transposed: false,
        }
    }

    /// The rule of a Sequential.
    pub(crate) const fn next(batch_norm: &'static str) -> Self {
        Self::Next { batch_norm }
    }
}

/// What is known about the ε of an architecture.
#[derive(Debug)]
pub(crate) enum Epsilon {
    /// It always has this one.
    Known(f64),
    /// The shapes tell its members apart.
    ByShape(fn(&View<'_>) -> Option<f64>),
    /// Names and shapes do not tell, and why.
    Unknown(&'static str),
}

/// The shapes of an architecture's layers, by their names in it.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) index: &'a Index<'a>,
    pub(crate) naming: Naming,
    pub(crate) prefix: &'a str,
}

impl View<'_> {
    /// The shape of a layer's weight; empty if there is no such layer.
    pub(crate) fn shape(&self, layer: &str) -> &[usize] {
        let module = format!("{}{layer}", self.prefix);
        self.index.shape(self.naming, &module).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::pairing::pattern::Pattern;

    #[test]
    fn the_patterns_of_all_tables_are_right() {
        for scheme in SCHEMES {
            for architecture in scheme.architectures {
                assert!(!architecture.name.is_empty() && !architecture.markers.is_empty());
                let parse = |text: &str| Pattern::parse(text).unwrap();
                for rule in architecture.rules {
                    let Rule::Named {
                        layer,
                        batch_norm,
                        with,
                        without,
                        ..
                    } = rule
                    else {
                        continue;
                    };
                    let known = parse(batch_norm);
                    for text in [layer].into_iter().chain(*with).chain(*without) {
                        let pattern = parse(text);
                        let unknown: Vec<_> = pattern
                            .variables()
                            .difference(&known.variables())
                            .map(ToString::to_string)
                            .collect();
                        assert!(unknown.is_empty(), "{}: {text}", architecture.name);
                    }
                }
                for (leaf, why) in architecture.leaves {
                    parse(leaf);
                    assert!(!why.is_empty());
                }
            }
        }
    }
}
