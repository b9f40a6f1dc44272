//! placeholder: the proofs.

pub mod algebra;
