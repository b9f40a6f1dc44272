//! What an input file may ask for, at most: the sizes that would otherwise be up to whoever wrote the file.
//!
//! A file cannot make a reader allocate what it merely claims. What is left are files that are small and honest and become large:
//! nesting, compression, constants that are computed, values that a network computes. Those limits are here, all of them, so that
//! a program that knows its files can change them. They are one set for the whole process, read where they count: handing them
//! through every function that reads anything would make each signature longer, for something that hardly anybody changes.
//!
//! Not here: bounds of searches and rewrites (how far a fold walks, how long a name in a message is). They decide what is done,
//! not what a file may ask for.

use std::sync::OnceLock;

use crate::{Error, Result};

static LIMITS: OnceLock<Limits> = OnceLock::new();

macro_rules! limits {
    ($($(#[$doc:meta])+ $name:ident = $value:expr;)+) => {
        /// The limits, with defaults that real models stay far below.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Limits {
            $($(#[$doc])+ pub $name: u64,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $value,)+ }
            }
        }

        impl Limits {
            /// Names and values, in the order of their declaration. In names, dashes stand for underscores.
            pub fn all(&self) -> Vec<(String, u64)> {
                vec![$((stringify!($name).replace('_', "-"), self.$name),)+]
            }

            /// Sets the limit of this name (with dashes).
            ///
            /// # Errors
            /// If there is none; the message lists those that there are.
            pub fn set(&mut self, name: &str, value: u64) -> Result<()> {
                $(if stringify!($name).replace('_', "-") == name {
                    self.$name = value;
                    return Ok(());
                })+
                let names: Vec<String> = self.all().into_iter().map(|(name, _)| name).collect();
                Err(Error::invalid(format!("there is no limit {name:?}; there are {}", names.join(", "))))
            }
        }
    };
}

limits! {
    /// How deep graphs lie in graphs (bodies of If, Loop, Scan). Each takes stack: a few hundred need a larger one.
    graph_depth = 32;
    /// Dimensions of a tensor.
    tensor_rank = 1024;
    /// Bytes of the header of a safetensors file. It takes some ten times as much memory.
    header_bytes = 100_000_000;
    /// Bytes of the index of a sharded checkpoint: room for some 200000 tensors.
    index_bytes = 32_000_000;
    /// Elements that an expression of constants may have where no tensor that it reads has as many.
    constant_elements = 1 << 24;
    /// Nodes of an expression of constants.
    constant_nodes = 4096;
    /// Nodes of a graph whose functions are written out, for the engine.
    function_nodes = 1 << 18;
    /// Elements of one value, where a network is run.
    value_elements = 1 << 31;
    /// Elements of one input that is made for a proof.
    sample_elements = 1 << 27;
    /// Pixels of an image, as it is stored and after a resize.
    image_pixels = 1 << 26;
    /// Bytes of the header of a `.npy` array.
    array_header_bytes = 1 << 16;
    /// Bytes that the arrays of an `.npz` archive take, unpacked, whatever the size of the archive.
    archive_bytes = 1 << 28;
    /// How many times its size an `.npz` archive may take, unpacked, if that is more.
    archive_ratio = 100;
    /// Bytes of a text file of labels.
    labels_bytes = 1 << 28;
    /// Bytes of a file of partial moments.
    partial_bytes = 1 << 28;
    /// Bytes of a file of kept statistics.
    kept_bytes = 1 << 30;
    /// Bytes of a YAML file: a configuration, a pairing, a description of what is done to images.
    yaml_bytes = 1 << 20;
    /// Brackets that are open at once in a YAML file.
    yaml_depth = 256;
}

impl Limits {
    /// The limits of this process.
    pub fn get() -> &'static Self {
        LIMITS.get_or_init(Self::default)
    }

    /// Makes these the limits of this process. Once, before anything is read: what was read under other limits would be in doubt.
    ///
    /// # Errors
    /// If limits were installed or used before.
    pub fn install(self) -> Result<()> {
        LIMITS
            .set(self)
            .map_err(|_| Error::invalid("limits are installed once, before anything is read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_set_by_its_name() {
        let mut limits = Limits::default();
        limits.set("image-pixels", 7).unwrap();
        assert_eq!(limits.image_pixels, 7);
        let changed: Vec<_> = (limits.all().into_iter())
            .zip(Limits::default().all())
            .filter(|(new, old)| new != old)
            .collect();
        assert_eq!(changed.len(), 1);
        let error = limits.set("image_pixels", 7).unwrap_err().to_string();
        assert!(
            error.contains("graph-depth") && error.contains("yaml-bytes"),
            "{error}"
        );
    }

    #[test]
    fn limits_are_installed_before_they_are_used() {
        let limits = *Limits::get();
        assert_eq!(limits, Limits::default());
        assert!(limits.install().is_err());
    }
}
