//! State dicts: checkpoints of tensors without a graph.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `groups` | the BatchNorms of a checkpoint, by the names of their tensors |
//! | `pairing/` | which layer feeds which BatchNorm: pairing files and presets |
//! | `names` | what other names tell |
//! | `bind` | a graph with the weights of a checkpoint |
//! | `paired` | a pairing as a graph |
//! | `carry` | from a folded graph back to the checkpoint |
//! | `identity` | BatchNorms that stay as an identity |
//! | `write` | the checkpoint with its changes, into files |
//! | `proof` | the pairs before and after, for the proof |
//! | `explain` | what the codes mean |
//! | `fold` | the job |
//! | `folding` | the plan on the graph, carried back to the checkpoint |
//! | `report` | what is said of it |
//! | `options` | the job or that of a graph, whichever a file is for |
//! | `pair` | a pairing to look at |
//! | `recalibrate` | new statistics, from the network as a graph |

mod bind;
mod carry;
mod explain;
mod fold;
mod folding;
pub mod groups;
mod identity;
mod names;
mod options;
mod pair;
mod paired;
pub mod pairing;
mod proof;
pub(crate) mod recalibrate;
mod report;
mod write;

use bnkit_model::safetensors::StateDict;

pub use bind::Binding;
pub(crate) use explain::EXPLANATIONS;
pub use fold::{PairingSource, StateFoldJob, fold};
pub use options::{PairingOptions, fold_checkpoint};
pub use pair::{LeftReport, PairJob, PairingReport, pair};
pub(crate) use report::describe_input;
pub use report::{PairReport, StateReport};

/// The tensors of a checkpoint, for those who go by names and shapes.
pub fn entries(dict: &StateDict) -> Vec<groups::Entry> {
    let entry = |tensor: &bnkit_model::safetensors::Tensor| groups::Entry {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        is_float: tensor.is_float(),
    };
    dict.tensors().iter().map(entry).collect()
}
