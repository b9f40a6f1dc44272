//! External data that is not where a model may have it.

use super::{Needs, Rule};
use crate::Result;
use crate::check::Level;
use crate::check::found::Found;
use crate::check::subject::Subject;
use crate::explain::{Explanation, Kind};

pub(super) const RULE: Rule = Rule {
    code: "external-data",
    level: Level::Error,
    needs: Needs::Graph,
    action: "put the data file beside the model, and save the model with its plain name",
    explanation: Some(Explanation {
        code: "external-data",
        kind: Kind::Check,
        title: "external data is not in the model's folder, or not complete",
        text: "\
A tensor's elements are in another file, and that file has an absolute path, lies outside of the model's folder (`..`, a symbolic link),
is missing or too short. Such a model works on one machine only, and a model from elsewhere could name any file of yours. Nothing outside the
folder is opened.

Rules that need values are not asked then, and say so (`\"checked\": false`).",
    }),
    look,
};

fn look(subject: &Subject) -> Result<Vec<Found>> {
    let graph = subject.graph.iter();
    let unreadable = graph.flat_map(|graph| &graph.unreadable);
    let found = |(tensor, why): &(String, String)| {
        Found::at("", format!("tensor \"{tensor}\": {why}")).tensor(tensor)
    };
    Ok(unreadable.map(found).collect())
}
