//! What the page of `fold` shows: numbers, plots, and the table of all BatchNorms.

use bnkit::report::{Decision, FoldReport, Profile, Refusal, Site, Verification, WeightRange};

use super::place;
use crate::print::page::{
    Card, Cell, Chart, Grid, LayerChart, LayerMarks, Look, OutputChart, Page, Span,
};
use crate::print::proof::worst;
use crate::print::units::{bytes, sci, short};

pub(crate) fn page(report: &FoldReport) -> Page {
    let sites: Vec<&Site> = report.sites.iter().collect();
    let mut charts = profiles(&report.profiles);
    charts.extend(weights(&report.profiles));
    charts.extend(report.verification.as_ref().and_then(errors));
    Page {
        cards: cards(report),
        charts,
        grid: grid(&sites, &report.profiles),
        replaced: &["Kept", "Skipped, as asked", "Folded"],
    }
}

fn cards(report: &FoldReport) -> Vec<Card> {
    let summary = &report.summary;
    let gone = summary.folded + summary.half_folded + summary.merged + summary.lowered;
    let stay = match (summary.kept, summary.skipped) {
        (0, 0) => String::new(),
        (kept, 0) => format!("{kept} kept"),
        (kept, skipped) => format!("{kept} kept, {skipped} skipped"),
    };
    let mut cards = vec![
        Card::new(
            "BatchNorms folded",
            format!("{gone} of {}", summary.batch_norms),
            stay,
        ),
        Card::new(
            "Nodes",
            format!("{} → {}", summary.nodes_before, summary.nodes_after),
            "",
        ),
    ];
    let before = bytes(report.input.bytes);
    cards.push(match &report.output {
        Some(output) => Card::new(
            "Size",
            format!("{before} → {}", bytes(output.bytes)),
            output.path.clone(),
        ),
        None => Card::new("Size", before, "nothing was written"),
    });
    cards.extend(report.verification.as_ref().and_then(largest_error));
    cards
}

/// The error of the output that is worst off.
pub(crate) fn largest_error(proof: &Verification) -> Option<Card> {
    let output = worst(&proof.outputs)?;
    Some(Card::new(
        "Largest error",
        sci(output.max_abs),
        format!(
            "{}: {} is accepted, {} is noise",
            output.name,
            sci(output.tolerance),
            sci(output.noise_floor)
        ),
    ))
}

/// The error of each output against its noise floor.
pub(crate) fn errors(proof: &Verification) -> Option<Chart> {
    let outputs = proof.outputs.clone();
    (!outputs.is_empty()).then_some(Chart::Outputs(OutputChart { outputs }))
}

/// Every BatchNorm; with its statistics, where they are known.
pub(crate) fn grid(sites: &[&Site], profiles: &[Profile]) -> Option<Grid> {
    if sites.is_empty() {
        return None;
    }
    let mut header = vec![
        "#",
        "BatchNorm",
        "channels",
        "decision",
        "rule or code",
        "route or reason",
    ];
    if !profiles.is_empty() {
        header.extend(["μ median", "σ median", "scale max"]);
    }
    // Profiles are in the order of the sites; a site without parameters has none.
    let mut rest = profiles;
    let rows = sites.iter().enumerate().map(|(at, site)| {
        let mut row = row(at, site);
        if !profiles.is_empty() {
            let own = |profile: &&Profile| profile.node == site.node && profile.scope == site.scope;
            match rest.first().filter(own) {
                Some(profile) => {
                    rest = &rest[1..];
                    let values = [
                        profile.mean.median,
                        profile.deviation.median,
                        profile.effective_scale.max,
                    ];
                    row.extend(values.map(|value| Cell::number(value, short(value))));
                }
                None => row.extend([Cell::default(), Cell::default(), Cell::default()]),
            }
        }
        row
    });
    let rows = rows.collect();
    Some(Grid {
        title: "All BatchNorms",
        header,
        rows,
    })
}

fn row(at: usize, site: &Site) -> Vec<Cell> {
    let broken = |refusal: &Refusal| refusal.code == "bad-statistics";
    let (word, look) = match site.decision {
        Decision::Kept if site.refusal.as_ref().is_some_and(broken) => ("kept", Look::Bad),
        Decision::Folded => ("folded", Look::Good),
        Decision::HalfFolded => ("half folded", Look::Good),
        Decision::Merged => ("merged", Look::Good),
        Decision::Lowered => ("lowered", Look::Good),
        Decision::Kept => ("kept", Look::Doubtful),
        Decision::Skipped => ("skipped", Look::Plain),
    };
    let (code, route) = match &site.refusal {
        Some(refusal) => (refusal.code, refusal.message.clone()),
        None => (site.rule.unwrap_or_default(), route(site)),
    };
    let number = at + 1;
    vec![
        Cell::number(number as f64, number.to_string()),
        Cell::code(place(site)),
        Cell::number(site.channels as f64, site.channels.to_string()),
        Cell::text(word).look(look),
        Cell::code(code),
        Cell::text(route),
    ]
}

fn route(site: &Site) -> String {
    let into = site.into.join(", ");
    match site.via.as_slice() {
        [] => into,
        via => format!("{into}, through {}", via.join(", ")),
    }
}

/// How statistics are spread over the channels of each BatchNorm.
pub(crate) fn profiles(profiles: &[Profile]) -> Vec<Chart> {
    const HOW: &str =
        "one column per BatchNorm: ends, 5–95 %, 25–75 % and the median of its channels.";
    let chart = |title, what: &str, log, span: fn(&Profile) -> Option<Span>| {
        let layers = profiles.iter().map(|profile| LayerMarks {
            name: profile.node.clone(),
            spans: vec![span(profile)],
        });
        Chart::Layers(LayerChart {
            title,
            what: format!("{what}, {HOW}"),
            log,
            series: vec![title],
            layers: layers.collect(),
            limit: None,
        })
    };
    if profiles.is_empty() {
        return Vec::new();
    }
    vec![
        chart("Running mean", "Stored μ", false, |it| {
            Span::of_spread(&it.mean)
        }),
        chart("Deviation", "Stored √(σ²+ε)", true, |it| {
            Span::of_spread(&it.deviation)
        }),
        chart(
            "Effective scale",
            "|γ|/√(σ²+ε), by which a fold multiplies weights",
            true,
            |it| Span::of_spread(&it.effective_scale),
        ),
    ]
}

/// The weights before and after.
fn weights(profiles: &[Profile]) -> Option<Chart> {
    let span = |range: &WeightRange| Span::ends(range.min, range.max);
    let weights: Vec<_> = profiles.iter().flat_map(|it| &it.weights).collect();
    let folded = weights.iter().any(|weight| weight.after.is_some());
    let layers: Vec<LayerMarks> = weights
        .iter()
        .map(|weight| LayerMarks {
            name: weight.node.clone(),
            spans: match folded {
                true => vec![span(&weight.before), weight.after.as_ref().and_then(span)],
                false => vec![span(&weight.before)],
            },
        })
        .collect();
    (!layers.is_empty()).then(|| {
        Chart::Layers(LayerChart {
            title: "Weight range",
            what: "Smallest to largest element of each weight that a BatchNorm goes into. A wide range costs digits when it is quantised."
                .to_owned(),
            log: false,
            series: match folded {
                true => vec!["before", "after"],
                false => vec!["before"],
            },
            layers,
            limit: None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;

    #[test]
    fn the_grid_has_every_batch_norm() {
        let page = page(&samples::fold());
        let grid = page.grid.unwrap();
        assert_eq!((grid.rows.len(), grid.header.len()), (4, 6));
        assert!(grid.rows.iter().all(|row| row.len() == 6));
        let kept: Vec<&str> = grid.rows[3].iter().map(|cell| cell.text.as_str()).collect();
        assert_eq!(
            kept,
            [
                "4",
                "/norm/BatchNormalization",
                "64",
                "kept",
                "shared-output",
                "the value \"x\" is read by 2 nodes"
            ]
        );
        assert_eq!(page.cards[0].value, "3 of 4");
    }

    #[test]
    fn a_site_without_a_profile_does_not_take_that_of_the_next() {
        let mut report = samples::fold();
        report.profiles = samples::profiles(&report.sites[1..]);
        let grid = page(&report).grid.unwrap();
        assert_eq!(grid.rows[0][6].text, "");
        assert!(grid.rows[1..].iter().all(|row| row[6].text == "0.5"));
    }
}
