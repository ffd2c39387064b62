//! The answers to calls as text, laid out as buildx does it.

use std::fmt::Write as _;

use frontend::call::{BuildError, Finding, Location, Outline, OutlinedMount, Targets};
use frontend::{Source, without_secrets};

const RULER: &str = "--------------------";

/// What was found, by line.
pub(super) fn check(
    warnings: &[Finding],
    error: Option<&BuildError>,
    dockerfile: &Source,
) -> String {
    let mut text = match (warnings.len(), error) {
        (0, Some(_)) => return String::new(),
        (0, None) => return "Check complete, no warnings found.\n".to_owned(),
        (1, _) => "Check complete, 1 warning has been found!\n".to_owned(),
        (several, _) => format!("Check complete, {several} warnings have been found!\n"),
    };
    let mut warnings: Vec<&Finding> = warnings.iter().collect();
    warnings.sort_by_key(|warning| warning.location.first_line());
    let lines = Lines::of(dockerfile);
    for Finding { rule_name, url, detail, location, .. } in warnings {
        let url = url.as_ref().map_or_else(String::new, |url| format!(" - {url}"));
        let excerpt = lines.excerpt(location);
        text += &format!("\nWARNING: {rule_name}{url}\n{detail}\n{excerpt}");
    }
    if error.is_some() {
        text.push('\n');
    }
    text
}

/// Why a build would fail, and where.
pub(super) fn build_error(error: &BuildError, dockerfile: &Source) -> String {
    format!("ERROR: {}\n{}", error.message, Lines::of(dockerfile).excerpt(&error.location))
}

/// A Dockerfile in lines, cut once for all excerpts.
struct Lines<'a> {
    name: &'a str,
    lines: Vec<String>,
}

impl<'a> Lines<'a> {
    fn of(dockerfile: &'a Source) -> Self {
        let shown = without_secrets(&dockerfile.text);
        // A line end at the end of the file is followed by one more line.
        Self { name: &dockerfile.name, lines: shown.split('\n').map(str::to_owned).collect() }
    }

    /// The lines of an instruction and some around them: two where it has one line, else one.
    fn excerpt(&self, location: &Location) -> String {
        let Some(marked) = &location.0 else { return String::new() };
        let lines = &self.lines;
        let around = if marked.start() == marked.end() { 2 } else { 1 };
        let first = marked.start().saturating_sub(around).max(1);
        let last = (marked.end() + around).min(lines.len());
        let mut text = format!("{}:{}\n{RULER}\n", self.name, marked.start());
        for number in first..=last {
            let mark = if marked.contains(&number) { ">>>" } else { "   " };
            let line = &lines[number - 1];
            writeln!(text, " {number:3} | {mark} {line}").expect("a string takes everything");
        }
        text + RULER + "\n"
    }
}

/// What a target takes.
pub(super) fn outline(outline: &Outline) -> String {
    let mut text = String::new();
    let Outline { name, description, args, secrets, ssh, .. } = outline;
    if !name.is_empty() || !description.is_empty() {
        let name = if name.is_empty() { "(default)" } else { name };
        let mut rows = vec![["TARGET:", name]];
        if !description.is_empty() {
            rows.push(["DESCRIPTION:", description]);
        }
        text += &table(&rows, 1);
        text.push('\n');
    }
    if !args.is_empty() {
        let rows = args.iter().map(|arg| [&arg.name, &arg.value, &arg.description]);
        let rows = rows.map(|row| row.map(String::as_str));
        let head = ["BUILD ARG", "VALUE", "DESCRIPTION"];
        text += &table(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), 3);
        text.push('\n');
    }
    text += &mounts("SECRET", secrets);
    text += &mounts("SSH", ssh);
    text
}

fn mounts(kind: &str, mounts: &[OutlinedMount]) -> String {
    if mounts.is_empty() {
        return String::new();
    }
    let row = |mount: &'_ OutlinedMount| if mount.required { "true" } else { "" };
    let rows = mounts.iter().map(|mount| [mount.name.as_str(), row(mount)]);
    table(&std::iter::once([kind, "REQUIRED"]).chain(rows).collect::<Vec<_>>(), 3) + "\n"
}

/// Which stages there are.
pub(super) fn targets(targets: &Targets) -> String {
    let names: Vec<String> = targets
        .targets
        .iter()
        .map(|stage| match (stage.name.as_str(), stage.default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        })
        .collect();
    let rows = names.iter().zip(&targets.targets);
    let rows = rows.map(|(name, stage)| [name.as_str(), stage.description.as_str()]);
    table(&std::iter::once(["TARGET", "DESCRIPTION"]).chain(rows).collect::<Vec<_>>(), 1)
}

/// Rows in columns with `gap` blanks between them; the last column is not filled up.
fn table<const COLUMNS: usize>(rows: &[[&str; COLUMNS]], gap: usize) -> String {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + gap);
        }
    }
    if let Some(last) = widths.last_mut() {
        *last = 0;
    }
    let line = |row: &[&str; COLUMNS]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.chain(["\n".to_owned()]).collect::<String>()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(marked: std::ops::RangeInclusive<usize>, text: &str) -> String {
        Lines::of(&Source::new("Dockerfile", text)).excerpt(&marked.into())
    }

    #[test]
    fn one_line_is_shown_with_two_around_it() {
        insta::assert_snapshot!(shown(3..=3, "1\n2\n3\n4\n5\n6\n"), @r"
        Dockerfile:3
        --------------------
           1 |     1
           2 |     2
           3 | >>> 3
           4 |     4
           5 |     5
        --------------------
        ");
    }

    #[test]
    fn several_lines_are_shown_with_one_around_them() {
        insta::assert_snapshot!(shown(2..=3, "1\n2\n3\n4\n5\n"), @r"
        Dockerfile:2
        --------------------
           1 |     1
           2 | >>> 2
           3 | >>> 3
           4 |     4
        --------------------
        ");
        assert_eq!(shown(1..=2, "a\nb").lines().count(), 5);
    }

    #[test]
    fn findings_are_told_by_line_and_only_some_have_a_page() {
        let finding = |rule_name, url: Option<&str>, line: usize| Finding {
            rule_name,
            description: None,
            url: url.map(str::to_owned),
            detail: format!("{rule_name} is wrong"),
            location: (line..=line).into(),
            is_ours: false,
        };
        let warnings = vec![finding("Late", Some("https://h/late/"), 2), finding("Early", None, 1)];
        insta::assert_snapshot!(check(&warnings, None, &Source::new("D", "1\n2")), @r"
        Check complete, 2 warnings have been found!

        WARNING: Early
        Early is wrong
        D:1
        --------------------
           1 | >>> 1
           2 |     2
        --------------------

        WARNING: Late - https://h/late/
        Late is wrong
        D:2
        --------------------
           1 |     1
           2 | >>> 2
        --------------------
        ");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(table(&[["ä", "b"], ["long", ""]], 3), "ä      b\nlong   \n");
    }
}
