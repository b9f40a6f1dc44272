//! ONNX models: the graph, what may be done to it, and how it gets from and to files.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `model` | the arenas: scopes, nodes, values, tensors, and their ids |
//! | `load` | a walk over the fields of a file that fills them |
//! | `resolve` | names: what they mean in a scope, the order of nodes |
//! | `recipe` | tensors that are computed when they are written |
//! | `read`, `typed` | the elements of tensors, in chunks; those of typed fields |
//! | `magnitude` | how large the elements of a tensor are |
//! | `payload` | the elements of tensors on the way out |
//! | `types` | element types and shapes, as far as they are certain |
//! | `constant` | which values are constants, and what they are |
//! | `edit` | the list of edits, and the one place that applies them |
//! | `encode` | the model as a list of byte ranges, old and new |
//! | `external` | external data: containment, reading, layout |
//! | `save` | writing atomically |

mod edit;
mod constant;
mod external;
mod load;
mod magnitude;
mod model;
mod payload;
mod read;
mod recipe;
mod resolve;
mod typed;
mod types;

pub use edit::{Edit, NewTensor, Operand};
pub use constant::{Constants, Dense, NotConstant};
pub use magnitude::Magnitude;
pub use model::*;
pub use recipe::{Base, Recipe, Scale};
pub use types::Types;
