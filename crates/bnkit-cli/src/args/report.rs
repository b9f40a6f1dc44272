//! `--report FILE`: the form follows from the ending.

use std::path::PathBuf;

/// A file to write the result to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReportFile {
    pub(crate) path: PathBuf,
    pub(crate) form: ReportForm,
}

/// The forms in which a result can go to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportForm {
    Json,
    Yaml,
    Markdown,
    Html,
    Junit,
    Sarif,
}

impl ReportFile {
    pub(crate) fn new(path: PathBuf) -> Result<Self, String> {
        let ending = path
            .extension()
            .map(|ending| ending.to_string_lossy().to_lowercase());
        let form = match ending.as_deref() {
            Some("json") => ReportForm::Json,
            Some("yaml" | "yml") => ReportForm::Yaml,
            Some("md") => ReportForm::Markdown,
            Some("html" | "htm") => ReportForm::Html,
            Some("xml") => ReportForm::Junit,
            Some("sarif") => ReportForm::Sarif,
            _ => {
                return Err(
                    "a report ends in .json, .yaml, .yml, .md, .html, .xml (JUnit) or .sarif"
                        .to_owned(),
                );
            }
        };
        Ok(Self { path, form })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_decides() {
        let form = |name: &str| ReportFile::new(name.into()).map(|file| file.form);
        assert_eq!(form("a/b.json"), Ok(ReportForm::Json));
        assert_eq!(form("b.YML"), Ok(ReportForm::Yaml));
        assert_eq!(form("b.c.md"), Ok(ReportForm::Markdown));
        assert_eq!(form("b.html"), Ok(ReportForm::Html));
        assert_eq!(form("b.xml"), Ok(ReportForm::Junit));
        assert_eq!(form("b.sarif"), Ok(ReportForm::Sarif));
        for other in ["b", "b.txt", ".json", "json"] {
            assert!(form(other).is_err(), "{other}");
        }
    }
}
