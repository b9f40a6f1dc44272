//! Annotations of a GitHub workflow: `::error file=…,title=…::text`.

use std::collections::BTreeMap;
use std::io::{self, Write};

/// How loud an annotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Notice,
    Warning,
    Error,
}

/// One annotation, about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Annotation {
    pub(crate) level: Level,
    pub(crate) file: String,
    pub(crate) title: String,
    pub(crate) text: String,
}

/// Annotations of one level, one per code: GitHub shows ten of a level and drops the rest without a word.
pub(super) fn by_code<'a>(
    level: Level,
    file: &str,
    found: impl IntoIterator<Item = (&'a str, String)>,
) -> Vec<Annotation> {
    let mut codes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (code, text) in found {
        codes.entry(code).or_default().push(text);
    }
    let annotation = |(code, texts): (&str, Vec<String>)| Annotation {
        level,
        file: file.to_owned(),
        title: code.to_owned(),
        text: texts.join("\n"),
    };
    codes.into_iter().map(annotation).collect()
}

/// Writes annotations as workflow commands, errors first.
pub(crate) fn write(annotations: &[Annotation], out: &mut dyn Write) -> io::Result<()> {
    for level in [Level::Error, Level::Warning, Level::Notice] {
        for annotation in annotations
            .iter()
            .filter(|annotation| annotation.level == level)
        {
            let name = match level {
                Level::Notice => "notice",
                Level::Warning => "warning",
                Level::Error => "error",
            };
            let (file, title) = (property(&annotation.file), property(&annotation.title));
            writeln!(
                out,
                "::{name} file={file},title={title}::{}",
                data(&annotation.text)
            )?;
        }
    }
    Ok(())
}

fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_escaped_and_errors_come_first() {
        let one =
            |level, text: &str| by_code(level, "a,b.onnx", [("x:y", text.to_owned())]).remove(0);
        let mut out = Vec::new();
        write(
            &[
                one(Level::Notice, "n"),
                one(Level::Error, "50 %\nnext::line"),
            ],
            &mut out,
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = "::error file=a%2Cb.onnx,title=x%3Ay::50 %25%0Anext::line\n\
                        ::notice file=a%2Cb.onnx,title=x%3Ay::n\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn many_of_a_code_are_one_annotation() {
        let found = [
            ("b", "1".to_owned()),
            ("a", "2".to_owned()),
            ("b", "3".to_owned()),
        ];
        let annotations = by_code(Level::Notice, "m", found);
        assert_eq!(annotations.len(), 2);
        assert_eq!(annotations[1].text, "1\n3");
    }
}
