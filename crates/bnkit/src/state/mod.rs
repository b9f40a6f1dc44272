//! State dicts: tensors by name, without a graph.

pub mod groups;
