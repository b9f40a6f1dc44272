//! State dicts: tensors by name, without a graph.
//!
//! What belongs together is told by names and shapes here, and by nothing else: [`groups`] finds the BatchNorms, [`pairing`]
//! says which layer feeds which of them. Both are pure functions over a list of [`groups::Entry`].

pub mod groups;
pub mod pairing;
