//! placeholder: the proofs.

pub mod algebra;
#[cfg(test)]
mod nets;
