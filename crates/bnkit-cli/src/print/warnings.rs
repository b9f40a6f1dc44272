//! Warnings, gathered: the same one about forty BatchNorms is one line.

use bnkit::report::{Site, Warning};

use super::Detail;
use super::units::count;

/// Every warning about a model and its BatchNorms, as lines for stderr.
pub(super) fn lines<'a>(
    model: &[Warning],
    sites: impl IntoIterator<Item = &'a Site>,
    detail: Detail,
) -> Vec<String> {
    let mut lines: Vec<String> = model
        .iter()
        .map(|warning| format!("{} [{}]", warning.message, warning.code))
        .collect();
    let mut codes: Vec<(&str, Vec<String>)> = Vec::new();
    for site in sites {
        for warning in &site.warnings {
            let text = format!("{}: {} [{}]", site.node, warning.message, warning.code);
            match codes.iter_mut().find(|(code, _)| *code == warning.code) {
                Some((_, texts)) => texts.push(text),
                None => codes.push((warning.code, vec![text])),
            }
        }
    }
    for (_, texts) in codes {
        match (detail, texts.as_slice()) {
            (Detail::Short, [first, rest @ ..]) if !rest.is_empty() => {
                let others = count(rest.len(), "other BatchNorm");
                lines.push(format!(
                    "{first}, and {others} like it (--verbose lists all)"
                ));
            }
            _ => lines.extend(texts),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::print::samples;

    #[test]
    fn equal_codes_are_one_line_unless_all_are_wanted() {
        let warning = |code, message: &str| Warning {
            code,
            message: message.to_owned(),
        };
        let mut sites = samples::fold().sites;
        for site in &mut sites {
            site.warnings = vec![warning("tiny-variance", "a variance is far below ε")];
        }
        let model = [warning(
            "foreign-domain",
            "operators of com.acme are carried",
        )];
        let short = lines(&model, &sites, Detail::Short);
        assert_eq!(short.len(), 2);
        assert_eq!(
            short[0],
            "operators of com.acme are carried [foreign-domain]"
        );
        assert!(
            short[1]
                .ends_with("[tiny-variance], and 3 other BatchNorms like it (--verbose lists all)"),
            "{short:?}"
        );
        assert_eq!(lines(&model, &sites, Detail::Full).len(), 5);
    }
}
