//! BatchNorms and Dropouts in training mode.

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::Found;
use crate::check::subject::Subject;
use crate::clean::{DropoutMode, dropout_mode};
use crate::explain::{Explanation, Kind};
use crate::site::{is_batch_norm, is_training};

pub(super) const RULE: Rule = Rule {
    code: "left-in-training",
    level: Level::Warning,
    needs: Needs::Graph,
    action: "ship what `bnkit fold` writes, or export after model.eval()",
    explanation: Some(Explanation {
        code: "left-in-training",
        kind: Kind::Check,
        title: "a BatchNorm or Dropout is in training mode",
        text: "\
A BatchNorm in training mode normalises each batch with its own statistics: the answer for a sample hangs on the samples beside it, and the
running statistics are not read. A Dropout in training mode drops at random. Shipped as it is, the model is wrong.

`bnkit fold` puts both into eval mode and says so for each, which is why this is a warning and no error: exporting in training mode is one of
the ways to keep BatchNorms in the file. A BatchNorm without running statistics cannot be put into eval mode (`no-running-statistics`).",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let Some(graph) = &subject.graph else {
        return Ok(Vec::new());
    };
    let (context, mut found) = (graph.context(), Vec::new());
    for (id, node) in graph.model.nodes() {
        let message = if is_batch_norm(&graph.model, id) && is_training(&graph.model, id) {
            "the BatchNorm normalises with the batch"
        } else if node.is("Dropout") && dropout_mode(&context, id) == DropoutMode::Training {
            "the Dropout drops at random"
        } else {
            continue;
        };
        found.push(Found::at(graph.model.label(id), message));
    }
    Ok(found)
}
