//! What the fuzz targets do, and how models are mutated. `docs/testing.md` says how they are run.

pub mod mutate;
pub mod targets;
