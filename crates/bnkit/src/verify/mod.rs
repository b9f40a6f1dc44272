//! placeholder: the proofs.

pub mod end_to_end;
pub mod inputs;
pub mod metrics;
