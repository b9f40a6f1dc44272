//! `bnkit explain`.

use anyhow::bail;
use bnkit::explain::{self, Explanation};

use super::Answer;
use crate::args::explain::Explain;
use crate::output::Output;
use crate::print::explain::{Explanations, OneExplanation};

/// From this similarity on (0 to 1), a code is worth suggesting.
const SIMILAR: f64 = 0.75;

pub(super) fn run(args: &Explain, output: &Output) -> anyhow::Result<Answer> {
    output.check(&[])?;
    let Some(code) = &args.code else {
        output.result(&Explanations::new(&explain::all()))?;
        return Ok(Answer::Yes);
    };
    let code = code.to_lowercase();
    let Some(explanation) = explain::find(&code) else {
        match suggestions(&code, &explain::all()).as_slice() {
            [] => bail!("there is no code {code:?}; bnkit explain lists all codes"),
            near => bail!(
                "there is no code {code:?}; did you mean {}?",
                near.join(" or ")
            ),
        }
    };
    output.result(&OneExplanation::new(&explanation))?;
    Ok(Answer::Yes)
}

/// The codes that are most like `code`, at most three, nearest first.
fn suggestions(code: &str, all: &[Explanation]) -> Vec<&'static str> {
    let mut near: Vec<(f64, &'static str)> = all
        .iter()
        .map(|known| {
            let contained = if !code.is_empty() && known.code.contains(code) {
                1.0
            } else {
                0.0
            };
            (
                strsim::jaro_winkler(code, known.code).max(contained),
                known.code,
            )
        })
        .filter(|(similar, _)| *similar >= SIMILAR)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    near.into_iter().take(3).map(|(_, code)| code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bnkit::explain::Kind;

    #[test]
    fn near_codes_are_suggested_nearest_first() {
        let known = |code| Explanation {
            code,
            kind: Kind::Refusal,
            title: "",
            text: "",
        };
        let all = [
            known("shared-output"),
            known("graph-output"),
            known("training-statistics"),
        ];
        assert_eq!(suggestions("shard-output", &all)[0], "shared-output");
        assert_eq!(suggestions("statistics", &all), ["training-statistics"]);
        assert!(suggestions("zzz", &all).is_empty());
        assert!(suggestions("", &all).is_empty());
    }
}
