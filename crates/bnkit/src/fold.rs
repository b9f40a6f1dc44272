//! Folding: moving the affine of each BatchNorm along the graph until operators absorb it into their constants.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `plan` | which BatchNorm goes where, in order; the model it is done on |
//! | `walk` | backwards and forwards along carriers to absorbers |
//! | `absorb/` | operators that swallow an affine |
//! | `carry/` | operators that an affine passes |
//! | `merge/` | branches that become one Conv |
//! | `unseen` | plans that leave looking at scaled weights to saving |
//! | `before` | what a plan remembers of the model as it was |
//! | `context` | what rules may ask, and edits that never touch what somebody else reads |

pub(crate) mod absorb;
mod before;
mod carry;
mod context;
pub(crate) mod merge;
pub(crate) mod operands;
mod plan;
mod unseen;
mod walk;

pub(crate) use absorb::constant_affine;
pub(crate) use before::Before;
pub(crate) use context::Context;
pub(crate) use plan::LOWERING;
pub(crate) use plan::plan_unseen;
pub use plan::{Options, Plan, plan, plan_without};
