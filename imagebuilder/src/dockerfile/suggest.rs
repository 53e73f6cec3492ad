//! "Did you mean": the known word that was most likely meant.

/// Longer words are no typing errors.
const MAX_LENGTH: usize = 40;

/// The one of `known` that is closest to `word`, if it is close.
pub(super) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(MAX_LENGTH + 1).collect();
    if word.len() > MAX_LENGTH {
        return None;
    }
    let distances = known.into_iter().map(|it| (distance(&word, &it.to_lowercase()), it));
    let (distance, closest) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + word.len() / 4).then_some(closest)
}

/// How many characters to insert, delete, replace or swap.
fn distance(word: &[char], known: &str) -> usize {
    let known: Vec<char> = known.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=known.len()).collect();
    for (row, char) in word.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, other) in known.iter().enumerate() {
            let replaced = last[column] + usize::from(char != other);
            let mut best = replaced.min(last[column + 1] + 1).min(next[column] + 1);
            let is_swap = row > 0 && column > 0 && *char == known[column - 1];
            if is_swap && word[row - 1] == *other {
                best = best.min(before[column - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut last, next);
    }
    last[known.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_word_is_found() {
        let known = ["FROM", "RUN", "COPY", "ENV", "ENTRYPOINT", "HEALTHCHECK"];
        for (word, want) in [
            ("FORM", Some("FROM")),
            ("fromm", Some("FROM")),
            ("rnu", Some("RUN")),
            ("COPPY", Some("COPY")),
            ("ENTRYPOIN", Some("ENTRYPOINT")),
            ("ENTYPIONT", Some("ENTRYPOINT")),
            ("HELTCHECK", Some("HEALTHCHECK")),
            ("apt-get", None),
            ("", None),
            ("EN", Some("ENV")),
        ] {
            assert_eq!(closest(word, known), want, "for `{word}`");
        }
        assert_eq!(closest(&"x".repeat(1 << 20), known), None);
    }
}
