//! What a person may have meant.

/// No slip of a key is longer.
const LONGEST: usize = 64;

/// The one of `candidates` that is nearest to `word`, if it is near enough to be meant.
pub(crate) fn nearest(word: &str, candidates: &[&'static str]) -> Option<&'static str> {
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase();
    candidates
        .iter()
        .map(|it| (distance(&word, it), *it))
        .filter(|(distance, it)| *distance <= it.len().max(word.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, it)| it)
}

/// How many letters to insert, delete, replace, or swap with their neighbour; `_` and `-` are one.
fn distance(a: &str, b: &str) -> usize {
    let letters = |it: &str| it.replace('_', "-").chars().collect::<Vec<char>>();
    let (a, b) = (letters(a), letters(b));
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let known = ["install", "pre_build", "build", "post_build", "commands", "files"];
        for (word, want) in [
            ("comands", Some("commands")),
            ("command", Some("commands")),
            ("Build", Some("build")),
            ("biuld", Some("build")),
            ("prebuild", Some("pre_build")),
            ("post-build", Some("post_build")),
            ("file", Some("files")),
            ("deploy", None),
            ("x", None),
            ("", None),
            ("commandsandmuchmore", None),
        ] {
            assert_eq!(nearest(word, &known), want, "for {word:?}");
        }
    }
}
