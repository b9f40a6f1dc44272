//! The ONNX schema as prost types, generated from `proto/onnx.proto` and checked in: generating it in every build would
//! cost minutes of compiling the generator. `tests/schema.rs` fails when the two differ;
//! `BNKIT_BLESS=1 cargo test -p bnkit-model --test schema` writes the file anew.
//!
//! Used for messages that are small (types, annotations, attributes). Graphs and tensors are walked field by field
//! instead, since prost drops what it does not know and copies what it does. `build` makes small messages by hand.

mod build;
// Generated code: its style is the generator's, and the schema documents itself.
#[allow(missing_docs, unreachable_pub, clippy::all)]
#[rustfmt::skip]
mod onnx;

pub use onnx::*;
