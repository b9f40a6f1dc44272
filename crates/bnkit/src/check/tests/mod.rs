//! Each rule with a checkpoint that trips it and one that nearly does.

mod files;
mod parts;

use std::collections::BTreeSet;
use std::fs;

use bnkit_model::onnx::AttributeValue;

use super::{CheckJob, CheckReport, Level, check, rules, suppress};
use crate::pipeline::Quiet;
use crate::verify::nets::attribute;
use parts::{
    CHANNELS, Parts, dropout, int, list_as_inputs, never_updated, opset, pooled, rename, second,
    three, train,
};

fn codes(report: &CheckReport) -> BTreeSet<&'static str> {
    report.findings.iter().map(|finding| finding.code).collect()
}

/// A rule of models: what trips it, and what comes close and does not.
type Rule = (&'static str, fn(&mut Parts), fn(&mut Parts));

const RULES: [Rule; 25] = [
    (
        "bad-statistics",
        |it| it.variance[1] = f64::NAN,
        |it| it.variance[1] = 1e30,
    ),
    (
        "bad-statistics",
        |it| it.variance[1] = f64::INFINITY,
        |_| (),
    ),
    (
        "bad-statistics",
        |it| it.mean[3] = f64::NAN,
        |it| it.mean[3] = 1e6,
    ),
    (
        "bad-statistics",
        |it| it.mean[3] = f64::NEG_INFINITY,
        |_| (),
    ),
    // Not more than -ε; a little less is another rule's.
    (
        "bad-statistics",
        |it| it.variance[0] = -2e-5,
        |it| it.variance[0] = -9e-6,
    ),
    (
        "negative-variance",
        |it| it.variance[0] = -9e-6,
        |it| it.variance[0] = 0.0,
    ),
    ("statistics-never-updated", never_updated, |it| {
        never_updated(it);
        it.variance[3] = 1.0001;
    }),
    ("statistics-never-updated", never_updated, |it| {
        // An identity: γ is √(1 + ε).
        never_updated(it);
        it.gamma = vec![1.00001_f64.sqrt(); CHANNELS];
    }),
    (
        "tiny-variance",
        |it| it.variance[2] = 1e-12,
        |it| it.variance[2] = 1e-3,
    ),
    (
        "tiny-variance",
        |it| it.variance[2] = 1e-12,
        |it| {
            // A dead channel amplifies nothing.
            (it.variance[2], it.gamma[2]) = (1e-12, 0.0);
        },
    ),
    (
        "exploding-scale",
        |it| it.gamma[0] = 1e3,
        |it| it.gamma[0] = 90.0,
    ),
    (
        "exploding-scale",
        |it| it.gamma[0] = 1e3,
        |it| it.gamma = vec![1e3; CHANNELS],
    ),
    (
        "dead-channel",
        |it| it.gamma[0] = 1e-9,
        |it| it.gamma[0] = 1e-4,
    ),
    (
        "left-in-training",
        |it| it.edit = train,
        |it| it.more = |net| net.with(int("training_mode", 0)),
    ),
    (
        "left-in-training",
        |it| it.more = |net| dropout(net, Some(1.0)),
        |it| it.more = |net| dropout(net, Some(0.0)),
    ),
    (
        "dropout-training-mode",
        |it| it.more = |net| dropout(net, None),
        |it| it.more = |net| dropout(net, Some(0.0)),
    ),
    (
        "overridable-parameter",
        |it| it.edit = |model| list_as_inputs(model, 8),
        |it| it.edit = |model| list_as_inputs(model, 3),
    ),
    (
        "shared-statistics",
        |it| it.more = |net| second(net, "m", 1e-5, "z"),
        |it| it.more = |net| second(net, "z_m", 1e-5, "z"),
    ),
    (
        "odd-epsilon",
        |it| it.epsilon = 3e-4,
        |it| it.epsilon = 1e-3,
    ),
    (
        "mixed-epsilon",
        |it| it.more = |net| three(net, 1e-3),
        |it| it.more = |net| three(net, 1e-5),
    ),
    (
        "odd-momentum",
        |it| it.more = |net| net.with(attribute("momentum", AttributeValue::Float(0.1))),
        |it| it.more = |net| net.with(attribute("momentum", AttributeValue::Float(0.99))),
    ),
    (
        "old-opset",
        |it| it.edit = |model| opset(model, 6),
        |it| it.edit = |model| opset(model, 7),
    ),
    (
        "duplicate-node-names",
        |it| it.edit = |model| rename(model, "same"),
        |it| it.edit = |model| rename(model, ""),
    ),
    (
        "f16-overflow",
        |it| it.weight[0] = 9e4,
        |it| it.weight[0] = 6e4,
    ),
    (
        "range-growth",
        |it| it.gamma[0] = 40.0,
        |it| it.gamma[0] = 10.0,
    ),
];

/// The rest, which takes more nodes.
const OTHERS: [Rule; 3] = [
    (
        "negative-scale-max-pool",
        |it| pooled(it, -1.0),
        |it| pooled(it, 1.0),
    ),
    (
        "negative-scale-max-pool",
        |it| pooled(it, -1.0),
        |it| it.gamma[1] = -1.0,
    ),
    ("not-folded", |it| it.more = |net| net.output("c"), |_| ()),
];

#[test]
fn a_healthy_model_has_no_findings() {
    let report = Parts::healthy().checked();
    assert_eq!(report.findings, [], "{:?}", codes(&report));
    assert_eq!((report.batch_norms, report.channels), (1, CHANNELS));
}

#[test]
fn each_rule_finds_what_it_is_for_and_not_what_comes_close() {
    for (code, trips, nearly) in RULES.into_iter().chain(OTHERS) {
        let mut parts = Parts::healthy();
        trips(&mut parts);
        let report = parts.checked();
        assert!(
            codes(&report).contains(code),
            "{code}: {:?}",
            report.findings
        );
        let mut parts = Parts::healthy();
        nearly(&mut parts);
        let report = parts.checked();
        assert!(
            !codes(&report).contains(code),
            "{code}: {:?}",
            report.findings
        );
    }
}

#[test]
fn an_exception_that_matches_nothing_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    let mut parts = Parts::healthy();
    parts.gamma[0] = 0.0;
    fs::write(&path, parts.bytes()).unwrap();
    let found = |glob: &str| {
        let mut job = CheckJob::new(&path);
        job.options.suppressions = vec![super::Suppression {
            code: "dead-channel".to_owned(),
            node: glob.to_owned(),
            reason: "pruned on purpose".to_owned(),
        }];
        check(&job, &Quiet).unwrap()
    };
    let report = found("y");
    assert_eq!(report.findings, []);
    assert_eq!(report.suppressed[0].reason, "pruned on purpose");
    assert_eq!(
        codes(&found("other*")),
        ["dead-channel", suppress::CODE].into()
    );
}

/// Every rule is in one of the tests above.
#[test]
fn no_rule_is_untested() {
    let of_models = RULES.iter().chain(&OTHERS).map(|(code, ..)| *code);
    let others = [
        "batches-not-counted",
        "incomplete-group",
        "external-data",
        suppress::CODE,
    ];
    let tested: BTreeSet<&str> = of_models.chain(others).collect();
    let known: BTreeSet<&str> = rules().iter().map(|rule| rule.code).collect();
    assert_eq!(tested, known);
    assert!(rules().iter().all(|rule| rule.level != Level::Allow));
}
