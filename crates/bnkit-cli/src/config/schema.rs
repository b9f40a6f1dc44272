//! `docs/bnkit.schema.json`: the configuration file for editors, made from the declared arguments.
//! `BNKIT_BLESS=1 cargo test --workspace --bins schema` writes it anew.

use std::path::Path;

use clap::builder::{PossibleValue, ValueHint};
use clap::{Arg, ArgAction, Command, CommandFactory};
use serde_json::{Map, Value, json};

use super::{DESCRIBED, NOT_HERE, PREPROCESS};
use crate::args::Cli;

/// Sections make sense for commands that have options beside the shared ones.
fn schema() -> Value {
    let command = Cli::command();
    let shared = command.get_arguments();
    let common: Map<String, Value> = shared
        .filter_map(|arg| Some((arg.get_long()?, option(arg))))
        .filter(|(name, _)| !NOT_HERE.contains(name))
        .map(|(name, option)| (name.to_owned(), option))
        .collect();
    let mut sections = Map::new();
    for subcommand in command.get_subcommands() {
        let own = subcommand.get_arguments();
        let options: Map<String, Value> = own
            .filter_map(|arg| Some((arg.get_long()?, option(arg))))
            .chain(common.keys().map(|name| {
                let reference = json!({"$ref": format!("#/$defs/{name}")});
                (name.as_str(), reference)
            }))
            .filter(|(name, _)| !NOT_HERE.contains(name))
            .map(|(name, option)| (name.to_owned(), option))
            .collect();
        sections.insert(
            subcommand.get_name().to_owned(),
            json!({
                "description": format!("Options of bnkit {}: {}", subcommand.get_name(), about(subcommand)),
                "type": ["object", "null"],
                "additionalProperties": false,
                "properties": options,
            }),
        );
    }
    sections.insert(
        PREPROCESS.to_owned(),
        json!({
            "description": "What is done to images, for all commands that run on any: imagenet, inception, tensorflow, a YAML file, or the steps by name",
            "type": ["string", "object"],
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bnkit.yaml",
        "description": "Options of bnkit by command; what the command line says wins",
        "type": ["object", "null"],
        "additionalProperties": false,
        "properties": sections,
        "$defs": common,
    })
}

fn about(command: &Command) -> String {
    command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn option(arg: &Arg) -> Value {
    let one = value(arg);
    let mut schema = match arg.get_action() {
        ArgAction::SetTrue => json!({"type": "boolean"}),
        ArgAction::Append => json!({"anyOf": [one, {"type": "array", "items": one}]}),
        _ => one,
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    schema["description"] = json!(help);
    schema
}

/// One value of an option. What is a number for the parser may be a text with a number in it.
fn value(arg: &Arg) -> Value {
    let words: Vec<PossibleValue> = arg.get_possible_values();
    let described = arg.get_long().is_some_and(|name| DESCRIBED.contains(&name));
    if !words.is_empty() {
        let names: Vec<&str> = words.iter().map(PossibleValue::get_name).collect();
        return json!({"enum": names});
    }
    match arg.get_value_hint() {
        ValueHint::FilePath | ValueHint::AnyPath if !described => json!({"type": "string"}),
        _ if described => json!({"type": ["string", "object"]}),
        _ => json!({"type": ["string", "number"]}),
    }
}

#[test]
fn the_schema_says_what_is_declared() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bnkit.schema.json");
    let expected = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("BNKIT_BLESS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{} is stale: BNKIT_BLESS=1 cargo test --workspace --bins schema",
        path.display()
    );
}

/// Every section and option of the schema is taken by the command, and nothing else is.
#[test]
fn the_schema_and_the_parser_agree() {
    let schema = schema();
    let sections = schema["properties"].as_object().unwrap();
    assert!(sections.contains_key("release") && sections.contains_key(PREPROCESS));
    for (name, section) in sections {
        for (option, value) in section["properties"].as_object().into_iter().flatten() {
            let yaml = match &value["type"] {
                Value::String(kind) if kind == "boolean" => "true",
                _ => "~x~",
            };
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), format!("{name}:\n  {option}: {yaml}\n")).unwrap();
            let answer = super::apply(Cli::command(), name, file.path());
            let unknown = answer.is_err_and(|error| error.to_string().contains("unknown"));
            assert!(!unknown, "{name}: {option}");
        }
    }
}
