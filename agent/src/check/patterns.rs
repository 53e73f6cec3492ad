//! Patterns of artifacts that can match no file, whatever files there are.
//!
//! A pattern with a variable may become anything, and is left alone.

use std::path::Path;

use crate::{
    artifacts::{self, ArtifactsError},
    check::{
        File, Finding,
        outline::{ArtifactsOutline, Text},
    },
};

const RULE: &str = "glob-without-match";

pub(super) fn findings(file: &File<'_>) -> Vec<Finding> {
    file.outline.artifacts.iter().flat_map(of).collect()
}

fn of(artifacts: &ArtifactsOutline<'_>) -> Vec<Finding> {
    let files = artifacts.files.iter().filter_map(|it| file_pattern(it, artifacts));
    let excludes = artifacts.exclude_paths.iter().filter_map(exclude_pattern);
    let base = artifacts.base_directory.iter().filter_map(base_pattern);
    files.chain(excludes).chain(base).collect()
}

fn file_pattern(pattern: &Text<'_>, artifacts: &ArtifactsOutline<'_>) -> Option<Finding> {
    let text = known(pattern)?;
    let (why, hint) = no_file(text)
        .or_else(|| has_no_base(text, artifacts))
        .or_else(|| is_excluded(text, artifacts))?;
    let message = format!("`{text}` matches no file: {why}");
    let finding = Finding::new(RULE, pattern.place, message);
    Some(Finding { hint, ..finding })
}

fn exclude_pattern(pattern: &Text<'_>) -> Option<Finding> {
    let text = known(pattern)?;
    let (why, hint) = no_file(text)?;
    let finding = Finding::new(RULE, pattern.place, format!("`{text}` excludes no file: {why}"));
    Some(Finding { hint, ..finding })
}

fn base_pattern(pattern: &Text<'_>) -> Option<Finding> {
    let text = known(pattern)?;
    let (why, hint) = escapes(text).or_else(|| is_invalid(text))?;
    let message = format!("`{text}` matches no base directory: {why}");
    let finding = Finding::new(RULE, pattern.place, message);
    Some(Finding { hint, ..finding })
}

/// The pattern, if no variable may change it.
fn known<'t>(pattern: &Text<'t>) -> Option<&'t str> {
    (!pattern.text.contains('$')).then_some(pattern.text)
}

/// Why there is no match, and what to do about it.
type Reason = (String, Option<String>);

/// Why a pattern can be the path of no file.
fn no_file(text: &str) -> Option<Reason> {
    let folder = |folder: &str| {
        let below = if folder.is_empty() { "**/*".to_owned() } else { format!("{folder}/**/*") };
        Some(("it names a folder".to_owned(), Some(format!("all files in it are `{below}`"))))
    };
    let trimmed = text.trim_end_matches('/');
    match text {
        "" => Some(("it is empty".to_owned(), None)),
        "." | "./" => folder(""),
        "/" => folder("/"),
        _ if trimmed.len() < text.len() => folder(trimmed),
        _ if text.ends_with("/.") || text.ends_with("/..") || text == ".." => folder(text),
        _ => escapes(text).or_else(|| is_invalid(text)),
    }
}

/// Whether a pattern leads out of where it starts.
fn escapes(text: &str) -> Option<Reason> {
    let mut depth = 0_usize;
    for component in text.split('/').filter(|it| !matches!(*it, "" | ".")) {
        if component != ".." {
            depth += 1;
            continue;
        }
        let Some(up) = depth.checked_sub(1) else {
            let why = "`..` leads out of the base directory".to_owned();
            let hint = "copy the files to where the build is, or name them by an absolute path";
            return Some((why, Some(hint.to_owned())));
        };
        depth = up;
    }
    None
}

fn is_invalid(text: &str) -> Option<Reason> {
    matches(text, "").err()?;
    let hint = "a `\\` takes the meaning from `*`, `?`, `[` and `{`".to_owned();
    Some(("it is not a pattern".to_owned(), Some(hint)))
}

/// An absolute pattern and a base directory have nothing in common.
fn has_no_base(text: &str, artifacts: &ArtifactsOutline<'_>) -> Option<Reason> {
    let base = artifacts.base_directory.filter(|_| text.starts_with('/'))?;
    let is_inside = base.text.contains('$') || text.starts_with(base.text);
    (!is_inside).then(|| {
        let why = format!("it is absolute, and files are looked for in `{}`", base.text);
        (why, Some("leave out `base-directory`, or the `/`".to_owned()))
    })
}

/// Whether all that the pattern matches is left out again.
fn is_excluded(text: &str, artifacts: &ArtifactsOutline<'_>) -> Option<Reason> {
    let text = tidy(text);
    let is_literal = !text.contains(['*', '?', '[', '{', '\\']);
    let excludes = artifacts.exclude_paths.iter().filter_map(known);
    let mut excludes = excludes.filter(|exclude| {
        let exclude = tidy(exclude);
        let folder = exclude.strip_suffix("/**/*").or_else(|| exclude.strip_suffix("/**"));
        let is_below = folder.is_some_and(|it| {
            !it.contains(['*', '?', '[', '{', '\\'])
                && text.strip_prefix(it).is_some_and(|it| it.starts_with('/'))
        });
        is_below
            || exclude == text
            || matches!(exclude, "**/*" | "**")
            || is_literal && matches(exclude, text).unwrap_or(false)
    });
    excludes.next().map(|it| (format!("`exclude-paths` has `{it}`"), None))
}

fn tidy(text: &str) -> &str {
    text.trim_start_matches("./")
}

fn matches(pattern: &str, path: &str) -> Result<bool, ArtifactsError> {
    artifacts::matches(pattern, Path::new(path))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use crate::check::tests::check;

    #[track_caller]
    fn patterns(artifacts: &str, want: Expect) {
        let text = format!("version: 0.2\nphases: {{}}\nartifacts: {artifacts}\n");
        check("glob-without-match", &text, want);
    }

    #[test]
    fn patterns_that_match_nothing_are_found() {
        patterns(
            "{files: [out/, ., ../x, 'a/../../b', 'a[', '', /x/..]}",
            expect![[r"
                3:21 warning `out/` matches no file: it names a folder (all files in it are `out/**/*`)
                3:27 warning `.` matches no file: it names a folder (all files in it are `**/*`)
                3:30 warning `../x` matches no file: `..` leads out of the base directory (copy the files to where the build is, or name them by an absolute path)
                3:36 warning `a/../../b` matches no file: `..` leads out of the base directory (copy the files to where the build is, or name them by an absolute path)
                3:49 warning `a[` matches no file: it is not a pattern (a `\` takes the meaning from `*`, `?`, `[` and `{`)
                3:55 warning `` matches no file: it is empty
                3:59 warning `/x/..` matches no file: it names a folder (all files in it are `/x/../**/*`)
            "]],
        );
        patterns(
            "{files: [/tmp/x, a], base-directory: out}",
            expect![[r"
                3:21 warning `/tmp/x` matches no file: it is absolute, and files are looked for in `out` (leave out `base-directory`, or the `/`)
            "]],
        );
        patterns(
            "{files: a, base-directory: ../out, secondary-artifacts: {x: {files: b/}}}",
            expect![[r"
                3:39 warning `../out` matches no base directory: `..` leads out of the base directory (copy the files to where the build is, or name them by an absolute path)
                3:80 warning `b/` matches no file: it names a folder (all files in it are `b/**/*`)
            "]],
        );
    }

    #[test]
    fn patterns_that_are_excluded_again_are_found() {
        for (file, exclude) in [
            ("'**/*'", "'**/*'"),
            ("a", "a"),
            ("a/b.txt", "'**/*.txt'"),
            ("./a", "a"),
            ("'docs/*.md'", "'docs/**/*'"),
            ("'x/**/*'", "'**'"),
        ] {
            let text = format!(
                "version: 0.2\nphases: {{}}\nartifacts: {{files: {file}, exclude-paths: [{exclude}]}}\n"
            );
            let found = crate::check::tests::found("glob-without-match", &text);
            assert_eq!(found.len(), 1, "for {file} without {exclude}: {found:?}");
        }
    }

    #[test]
    fn patterns_that_may_match_are_not() {
        for artifacts in [
            "{files: ['**/*', a, ./a, a/../b, '{a,b}/*', /tmp/x, '.github/**/*', '$A/', '**']}",
            "{files: ['**/*'], exclude-paths: ['**/*.md', './x', '**/.*/**/*', '**/.*']}",
            "{files: ['a/*'], exclude-paths: ['b/**/*', 'a/b', 'a*/**/*']}",
            "{files: [/out/x], base-directory: /out}",
            "{files: [/out/x], base-directory: $CODEBUILD_SRC_DIR}",
            "{files: [a], base-directory: 'my-build*'}",
            "{files: [a], base-directory: out/}",
        ] {
            patterns(artifacts, expect![[""]]);
        }
    }
}
