//! Pages as files: nothing is loaded, nothing of a name is obeyed, many layers still open.

use bnkit::model::onnx::Name;
use bnkit::report::FoldReport;

use crate::print::{html, samples};

/// Names that would like to be more than names.
const HOSTILE: [&str; 5] = [
    "</title><script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onfocus='alert(1)",
    "a\u{202e}b\u{0}\u{1b}[31m",
    "`</code>` **<b>** | ](javascript:alert(1))",
];

fn page(report: &FoldReport) -> String {
    let mut out = Vec::new();
    html(report, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn hostile() -> FoldReport {
    let mut report = samples::fold();
    for (site, name) in report.sites.iter_mut().zip(HOSTILE) {
        site.node = name.into();
        site.scope = HOSTILE[0].into();
        site.into = HOSTILE.map(Name::from).to_vec();
    }
    report.profiles = samples::profiles(&report.sites);
    report.input.path = HOSTILE.concat();
    report.failure = Some(HOSTILE.concat());
    if let Some(proof) = &mut report.verification {
        proof.outputs[0].name = HOSTILE.concat();
    }
    report
}

#[test]
fn nothing_comes_from_elsewhere() {
    for report in [samples::fold(), hostile()] {
        let page = page(&report);
        for part in [
            "http:", "https:", "url(", "@import", "<link", "<img", " src=", " href=",
        ] {
            let found = page.replace("&lt;img src=x", "").contains(part);
            assert!(!found, "{part}");
        }
        assert!(page.contains("default-src 'none'"));
    }
}

/// Our own script is the only one, and what hostile names could open or break out of is escaped.
#[test]
fn names_are_only_text() {
    let page = page(&hostile());
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(
        page.matches("<title>").count(),
        page.matches("</title>").count()
    );
    for part in [
        "<img",
        "<b>",
        "\u{202e}",
        "\u{0}",
        "\u{1b}",
        "' onfocus",
        "<a ",
    ] {
        assert!(!page.contains(part), "{part:?}");
    }
    assert!(page.contains("a\\u{202e}b\\u{0}\\u{1b}[31m"));
    // A reader of XML finds every tag closed and every attribute quoted, but for HTML's empty elements and what we wrote ourselves.
    let body = page.find("<header>").unwrap()..page.find("<script>").unwrap();
    let body = format!("<body>{}</body>", page[body].replace("<wbr>", ""));
    let tree = roxmltree::Document::parse(&body).unwrap();
    let scripted = |node: &roxmltree::Node<'_, '_>| {
        node.attributes()
            .any(|attribute| attribute.name().starts_with("on"))
    };
    assert_eq!(tree.descendants().filter(scripted).count(), 0);
}

/// The page works without a mouse: areas that scroll take the focus and have a name, marks say their numbers.
#[test]
fn everything_has_a_name() {
    let mut report = samples::fold();
    report.profiles = samples::profiles(&report.sites);
    let page = page(&report);
    let body = page.find("<main>").unwrap()..page.find("<footer>").unwrap();
    let tree = page[body].replace("<wbr>", "");
    let tree = roxmltree::Document::parse(&tree).unwrap();
    let class = |name: &'static str| {
        tree.descendants().filter(move |node| {
            let classes = node.attribute("class").unwrap_or_default();
            classes.split(' ').any(|class| class == name)
        })
    };
    assert!(class("scroll").count() > 4 && class("mark").count() > 12);
    for area in class("scroll") {
        assert_eq!(area.attribute("tabindex"), Some("0"));
        assert!(
            area.attribute("aria-label")
                .is_some_and(|label| !label.is_empty())
        );
    }
    for mark in class("mark") {
        let title = mark.children().find(|node| node.has_tag_name("title"));
        assert!(
            title
                .and_then(|title| title.text())
                .is_some_and(|text| !text.is_empty())
        );
    }
    for head in tree.descendants().filter(|node| node.has_tag_name("th")) {
        assert_eq!(head.attribute("scope"), Some("col"));
    }
}

#[test]
fn ten_thousand_layers_are_drawn_as_hundreds() {
    let mut report = samples::fold();
    let site = report.sites[0].clone();
    report.sites = (0..10_000)
        .map(|at| bnkit::report::Site {
            node: format!("/block{at}/norm").into(),
            ..site.clone()
        })
        .collect();
    report.profiles = samples::profiles(&report.sites);
    let page = page(&report);
    let marks = page.matches("<g class=\"mark\">").count();
    assert!((200..2500).contains(&marks), "{marks}");
    assert!(page.contains("a column stands for 50 neighbours"));
    // The table is cut, and says so; a name of the part that is left is there.
    assert!(
        page.contains("/block1999/norm") && !page.contains("<td class=\"n\" data-v=\"2.001e3\">")
    );
    assert!(
        page.contains("8,000 more rows"),
        "a note on what is left out"
    );
}
