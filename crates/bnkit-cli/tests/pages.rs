//! The pages of the documentation hang together.

use std::fs;
use std::path::{Path, PathBuf};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// All pages, the README of the project included.
fn pages() -> Vec<PathBuf> {
    let entries = fs::read_dir(docs()).unwrap();
    let mut pages: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .collect();
    pages.push(docs().join("../README.md"));
    pages.sort();
    pages
}

/// Where the links of a page lead, without code blocks.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let prose = text.split("```").step_by(2);
    for part in prose.flat_map(|prose| prose.split("](").skip(1)) {
        let (target, _) = part.split_once(')').expect("a link ends");
        links.push(target.to_owned());
    }
    links
}

#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    for page in pages() {
        for link in links(&fs::read_to_string(&page).unwrap()) {
            let file = link.split('#').next().unwrap();
            if link.contains("://") || file.is_empty() {
                continue;
            }
            let target = page.parent().unwrap().join(file);
            assert!(target.exists(), "{}: {link}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 40, "{seen}");
}

#[test]
fn the_index_has_all_pages() {
    let index = links(&fs::read_to_string(docs().join("README.md")).unwrap());
    for page in pages() {
        let name = page.file_name().unwrap().to_string_lossy();
        if name != "README.md" {
            assert!(index.iter().any(|link| *link == name), "{name}");
        }
    }
}
