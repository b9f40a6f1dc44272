//! The golden graphs of `testdata/golden`: what the plan decides for each of their BatchNorms.

use std::path::PathBuf;

use bnkit::fold::{Options, plan};
use bnkit_model::onnx::Model;
use serde_json::Value;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden")
}

fn cases() -> Vec<Value> {
    let text = std::fs::read_to_string(golden().join("cases.json")).expect("testdata is there");
    serde_json::from_str(&text).expect("cases.json is JSON")
}

/// A field that holds one acceptable value or a list of them.
fn accepts(expected: &Value, found: &str) -> bool {
    match expected {
        Value::Null => true,
        Value::Array(list) => list.iter().any(|entry| entry == found),
        one => one == found,
    }
}

fn options(case: &Value) -> Option<Options> {
    let mut options = Options::default();
    let flags: Vec<&str> = case["flags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut flags = flags.into_iter();
    while let Some(flag) = flags.next() {
        match flag {
            "--through-branches" => options.through_branches = true,
            "--assume-constant" => options.assume_constant = true,
            "--allow-bad-statistics" => options.allow_bad_statistics = true,
            "--skip" => options.skip.push(flags.next()?.to_owned()),
            "--only" => options.only.push(flags.next()?.to_owned()),
            _ => return None,
        }
    }
    Some(options)
}

fn check(case: &Value) -> Result<(), String> {
    let Some(options) = options(case) else {
        return Ok(());
    };
    let name = case["name"].as_str().expect("a name");
    let path = golden().join(format!("{name}.onnx"));
    let planned = Model::open(&path)
        .map_err(|e| e.to_string())
        .and_then(|model| plan(&model, &options).map_err(|e| e.to_string()));
    if case["expect"] == "error" {
        return match (&planned, case["exit"].as_i64()) {
            // Some of these only show when the model is saved; the command's tests look at those.
            (Ok(plan), Some(1)) if plan.errors.is_empty() => Err("no error was found".to_owned()),
            _ => Ok(()),
        };
    }
    let plan = planned?;
    for expected in case["sites"].as_array().into_iter().flatten() {
        let node = expected["node"].as_str().unwrap_or("");
        let site = plan.sites.iter().find(|site| {
            if node.is_empty() {
                expected["output"] == site.output.as_str()
            } else {
                site.node == node
            }
        });
        let Some(site) = site else {
            return Err(format!("{node} is not in the plan"));
        };
        let decision = serde_json::to_value(site.decision).expect("a word");
        if !accepts(&expected["decision"], decision.as_str().unwrap_or("")) {
            let why = site.refusal.as_ref().map_or(String::new(), |refusal| {
                format!(" ({}: {})", refusal.code, refusal.message)
            });
            return Err(format!(
                "{node}: {decision}{why}, expected {}",
                expected["decision"]
            ));
        }
        if let Some(refusal) = &site.refusal
            && !accepts(&expected["code"], refusal.code)
        {
            return Err(format!(
                "{node}: {}: {}, expected {}",
                refusal.code, refusal.message, expected["code"]
            ));
        }
        if decision == "folded" {
            for into in expected["into"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
            {
                if !site.into.iter().any(|found| found == into) {
                    return Err(format!("{node}: into {:?}, expected {into}", site.into));
                }
            }
        }
    }
    if let Some(count) = case["affines_folded"].as_u64()
        && count != plan.summary.affines_folded as u64
    {
        return Err(format!(
            "{} affines folded, expected {count}",
            plan.summary.affines_folded
        ));
    }
    Ok(())
}

#[test]
fn every_golden_graph_is_planned_as_expected() {
    let cases = cases();
    assert!(cases.len() > 200, "the golden graphs are there");
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            check(case)
                .err()
                .map(|why| format!("{}: {why}", case["name"]))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        cases.len(),
        failures.join("\n")
    );
}
