//! ONNX models: the graph, what may be done to it, and how it gets from and to files.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `model` | the arenas: scopes, nodes, values, tensors, and their ids |
//! | `load` | a walk over the fields of a file that fills them |
//! | `resolve` | names: what they mean in a scope, the order of nodes |
//! | `recipe` | tensors that are computed when they are written |
//! | `read` | the elements of tensors, in chunks |
//! | `edit` | the list of edits, and the one place that applies them |
//! | `encode` | the model as a list of byte ranges, old and new |
//! | `external` | external data: containment, reading, layout |
//! | `save` | writing atomically |

mod edit;
mod load;
mod model;
mod recipe;
mod resolve;

pub use edit::{Edit, NewTensor, Operand};
pub use model::*;
pub use recipe::{Base, Recipe, Scale};
