//! Reports to print in tests.

use std::collections::BTreeMap;

use bnkit::model::onnx::Name;
use bnkit::report::{
    AbsorbingWeight, AlgebraSummary, BatchNormInfo, Cleanup, Decision, F64Summary, FoldReport,
    InputFile, InspectReport, OperatorCount, OutputComparison, OutputFile, ParameterStats, Port,
    Profile, Refusal, Site, Spread, Summary, Tool, Verdict, Verification, VerifyReport,
    WeightRange,
};

fn input(path: &str, bytes: u64) -> InputFile {
    InputFile {
        path: path.to_owned(),
        sha256: None,
        bytes,
        opset: Some(17),
        ir_version: 8,
        producer: "pytorch 2.4".to_owned(),
    }
}

fn site(name: &str, rule: &'static str, into: &str) -> Site {
    Site {
        module: None,
        node: format!("{name}/BatchNormalization").into(),
        output: format!("{name}/BatchNormalization_output_0").into(),
        scope: Name::default(),
        channels: 64,
        training_mode: false,
        decision: Decision::Folded,
        into: vec![format!("{name}/{into}").into()],
        via: Vec::new(),
        rule: Some(rule),
        refusal: None,
        warnings: Vec::new(),
    }
}

fn kept(name: &str) -> Site {
    let refusal = Refusal {
        code: "shared-output",
        message: "the value \"x\" is read by 2 nodes".to_owned(),
        evidence: BTreeMap::new(),
    };
    Site {
        decision: Decision::Kept,
        into: Vec::new(),
        rule: None,
        refusal: Some(refusal),
        ..site(name, "into-conv", "Conv")
    }
}

pub(crate) fn fold() -> FoldReport {
    FoldReport {
        state: None,
        schema: "bnkit.fold/1",
        tool: Tool::default(),
        input: input("net.onnx", 102_488_105),
        summary: Summary {
            batch_norms: 4,
            folded: 3,
            kept: 1,
            nodes_before: 12,
            nodes_after: 8,
            ..Summary::default()
        },
        sites: vec![
            site("/conv1", "into-conv", "Conv"),
            site("/conv2", "into-conv", "Conv"),
            site("/fc", "into-gemm", "Gemm"),
            kept("/norm"),
        ],
        merges: Vec::new(),
        merges_refused: Vec::new(),
        chains: Vec::new(),
        data_norms: Vec::new(),
        cleanup: vec![Cleanup {
            node: "/drop/Dropout".into(),
            action: "removed",
            detail: None,
        }],
        warnings: Vec::new(),
        errors: Vec::new(),
        verification: Some(equivalent()),
        kept_stats: None,
        profiles: Vec::new(),
        output: Some(OutputFile {
            path: "net.folded.onnx".to_owned(),
            sha256: None,
            bytes: 102_270_000,
            data: None,
        }),
        failure: None,
    }
}

fn output(name: &str) -> OutputComparison {
    OutputComparison {
        name: name.to_owned(),
        max_abs: 2.4e-6,
        max_rel: 1.1e-6,
        rms: 3.0e-7,
        snr_db: Some(128.4),
        argmax_agreement: Some(1.0),
        noise_floor: 1.9e-6,
        tolerance: 1.5e-5,
        within: true,
    }
}

pub(crate) fn equivalent() -> Verification {
    Verification {
        verdict: Verdict::Equivalent,
        engine: "tract".into(),
        samples: 4,
        algebra: Some(AlgebraSummary {
            checked: 3,
            max_ulp: 1.0,
        }),
        f64: Some(F64Summary { max_rel: 3.1e-14 }),
        culprit: None,
        outputs: vec![output("logits")],
        notes: Vec::new(),
    }
}

pub(crate) fn different() -> Verification {
    let wrong = OutputComparison {
        max_abs: 1.2e-2,
        within: false,
        ..output("logits")
    };
    Verification {
        verdict: Verdict::NotEquivalent,
        culprit: Some("/conv1/BatchNormalization".to_owned()),
        outputs: vec![output("boxes"), wrong],
        ..equivalent()
    }
}

pub(crate) fn verify() -> VerifyReport {
    VerifyReport {
        schema: "bnkit.verify/1",
        tool: Tool::default(),
        a: input("a.onnx", 1_000_000),
        b: input("b.onnx", 1_000_000),
        verification: equivalent(),
        failure: None,
    }
}

fn port(name: &str, dims: &[&str]) -> Port {
    let dims = dims.iter().map(|&dim| dim.to_owned()).collect();
    Port {
        name: name.to_owned(),
        dtype: "float32".to_owned(),
        dims: Some(dims),
    }
}

fn batch_norm(site: Site) -> BatchNormInfo {
    let tensor = |role| ParameterStats {
        role,
        name: format!("bn.{role}"),
        dtype: "float32".to_owned(),
        min: 0.5,
        max: 1.5,
        mean: 1.0,
    };
    BatchNormInfo {
        site,
        epsilon: f64::from(1e-5_f32),
        momentum: f64::from(0.9_f32),
        shape: Some(["N", "64", "8", "8"].map(str::to_owned).to_vec()),
        tensors: ["scale", "bias", "mean", "variance"].map(tensor).to_vec(),
        errors: Vec::new(),
    }
}

pub(crate) fn inspect() -> InspectReport {
    let operator = |op: &str, count| OperatorCount {
        op: op.to_owned(),
        count,
    };
    InspectReport {
        schema: "bnkit.inspect/1",
        tool: Tool::default(),
        input: input("net.onnx", 102_488_105),
        inputs: vec![port("x", &["N", "3", "8", "8"])],
        outputs: vec![port("logits", &["N", "10"])],
        parameters: 25_557_032,
        parameter_bytes: 102_228_128,
        operators: vec![operator("Conv", 8), operator("BatchNormalization", 4)],
        nodes: 12,
        metadata: Vec::new(),
        batch_norms: vec![
            batch_norm(site("/conv1", "into-conv", "Conv")),
            batch_norm(kept("/norm")),
        ],
        chains: Vec::new(),
        data_norms: Vec::new(),
        hints: Vec::new(),
        profiles: Vec::new(),
    }
}

/// One profile for each site, all alike.
pub(crate) fn profiles(sites: &[Site]) -> Vec<Profile> {
    let spread = |middle: f64| Spread {
        min: middle / 4.0,
        q05: middle / 3.0,
        q25: middle / 2.0,
        median: middle,
        q75: middle * 2.0,
        q95: middle * 3.0,
        max: middle * 4.0,
        not_finite: 0,
    };
    let range = |size: f64| WeightRange {
        min: -size,
        max: size,
    };
    let profile = |site: &Site| Profile {
        node: site.node.to_string(),
        scope: site.scope.to_string(),
        mean: spread(0.5),
        deviation: spread(1.0),
        effective_scale: spread(2.0),
        weights: site
            .into
            .iter()
            .map(|node| AbsorbingWeight {
                node: node.to_string(),
                before: range(1.0),
                after: Some(range(2.0)),
            })
            .collect(),
    };
    sites.iter().map(profile).collect()
}
