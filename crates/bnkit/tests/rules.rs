//! `docs/rules.md` says what the rules' own files say. `BNKIT_BLESS=1 cargo test --workspace --test rules` writes it anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use bnkit::explain::{Kind, all};

const KINDS: [(Kind, &str); 5] = [
    (
        Kind::Rule,
        "Rules: what takes a BatchNorm, or what becomes of it",
    ),
    (Kind::Refusal, "Refusals: why something stays"),
    (Kind::Warning, "Warnings"),
    (Kind::Error, "Errors"),
    (Kind::Check, "Checks: what `check` looks for besides"),
];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fold/carry")
}

/// The text of a module's header.
fn header(path: &Path) -> String {
    let source = std::fs::read_to_string(path).expect("a source file");
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    lines
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect()
}

/// The page as it should be.
fn page() -> String {
    let mut page = String::from(
        "# Rules and codes\n\nMade from the headers of the rules' files by `BNKIT_BLESS=1 cargo test --workspace --test rules`; \
         `bnkit explain CODE` prints the same texts.\n",
    );
    for (kind, title) in KINDS {
        write!(page, "\n## {title}\n").expect("text");
        for entry in all().iter().filter(|entry| entry.kind == kind) {
            let text = entry.text.trim();
            write!(page, "\n### {}: {}\n\n{text}\n", entry.code, entry.title).expect("text");
        }
        if kind == Kind::Rule {
            page.push_str("\n## Carriers: what a BatchNorm passes on its way\n\n");
            let mut files: Vec<PathBuf> = std::fs::read_dir(sources())
                .expect("a folder")
                .map(|entry| entry.expect("an entry").path())
                .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
                .collect();
            files.sort();
            for file in files {
                let text = header(&file);
                assert!(!text.is_empty(), "{} has no header", file.display());
                let name = file.file_stem().expect("a name").to_string_lossy();
                write!(page, "### `{name}`\n\n{text}\n").expect("text");
            }
            page.pop();
        }
    }
    page
}

#[test]
fn the_page_of_rules_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rules.md");
    let page = page();
    if std::env::var_os("BNKIT_BLESS").is_some() {
        std::fs::write(&path, &page).expect("docs/rules.md");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(page.lines()).position(|(a, b)| a != b);
    assert!(
        found == page,
        "docs/rules.md is stale from line {:?} on: BNKIT_BLESS=1 cargo test --workspace --test rules",
        line.map(|line| line + 1)
    );
}
