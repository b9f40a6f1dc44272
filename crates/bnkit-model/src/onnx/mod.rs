//! ONNX models: the graph, what may be done to it, and how it gets from and to files.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `model` | the arenas: scopes, nodes, values, tensors, and their ids |
//! | `name` | names, in one copy each |
//! | `meanings` | what the names of a scope mean |
//! | `uses` | who reads a value |
//! | `order` | the order of nodes |
//! | `view` | looking at them |
//! | `load` | a walk over the fields of a file that fills them |
//! | `resolve` | names: what they mean in a scope, the order of nodes |
//! | `recipe` | tensors that are computed when they are written |
//! | `read`, `typed` | the elements of tensors, in chunks; those of typed fields |
//! | `magnitude` | how large the elements of a tensor are |
//! | `payload` | the elements of tensors on the way out |
//! | `types` | element types and shapes, as far as they are certain |
//! | `constant` | which values are constants, and what they are |
//! | `edit`, `apply` | the list of edits, and the one place that applies them |
//! | `encode`, `segments` | the model as a list of byte ranges, old and new |
//! | `external` | external data on the way in: containment, reading |
//! | `layout` | external data on the way out |
//! | `save` | writing atomically |

mod apply;
mod constant;
mod edit;
mod encode;
mod external;
mod insert;
mod layout;
mod load;
mod magnitude;
mod meanings;
mod model;
mod name;
mod order;
mod payload;
mod read;
mod recipe;
mod resolve;
mod save;
mod segments;
mod typed;
mod types;
mod uses;
mod view;

pub use constant::{Constants, Dense, NotConstant};
pub use edit::{Edit, NewTensor, Operand};
pub use encode::Precision;
pub use magnitude::Magnitude;
pub use model::*;
pub use name::Name;
pub use recipe::{Base, Recipe, Scale};
pub use save::{SaveOptions, Saved};
pub use types::Types;
pub use uses::{Use, Uses};
