//! State dicts: named tensors without a graph, in one safetensors file or in several with an index.
//!
//! The rules of the format are those of the `safetensors` crate (a test holds this reader against it). The reading and
//! writing is done here, because that crate wants the whole file in memory, forgets the order of `__metadata__`, and
//! does not say which tensor is wrong.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `state_dict` | the tensors of a checkpoint, and their elements |
//! | `header` | the JSON at the start of a file: parsed, checked, written |
//! | `index` | the index of a sharded checkpoint |
//! | `entries` | JSON objects whose order counts and whose keys must not repeat |
//! | `save` | writing, all or nothing |
//! | `place` | what an output may replace, and how several files appear together |

mod destinations;
mod entries;
mod header;
mod index;

mod save;
mod state_dict;

pub use safetensors::Dtype;
pub use save::{Contents, NewFile, NewTensor, SaveOptions, Saved, save, save_sharded};
pub use state_dict::{Shard, StateDict, Tensor, dtype_of, of_dtype};
