//! The word that somebody may have meant.

/// The known word that a misspelt one is closest to, if it is close enough to be meant: it begins like that, or a few
/// letters were left out, added, changed or exchanged with their neighbours, or case and dashes are others.
pub(super) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = plain(word);
    // Long words would take long, and are not meant.
    if word.len() > WORD_LEN_MAX {
        return None;
    }
    let scored = known.into_iter().filter_map(|name| {
        let plain = plain(name);
        let distance = distance(&word, &plain);
        let allowed = 1 + plain.len().min(word.len()) / 4;
        let is_start = word.len() >= START_LEN_MIN && plain.starts_with(&word);
        (distance <= allowed || is_start).then_some((distance, name))
    });
    scored.min_by_key(|&(distance, _)| distance).map(|(_, name)| name)
}

/// Letters of a word that is compared.
const WORD_LEN_MAX: usize = 64;
/// Letters of a start that tells something.
const START_LEN_MIN: usize = 2;

/// A word without dashes and in lower case.
fn plain(word: &str) -> Vec<char> {
    word.chars().filter(|char| !matches!(char, '-' | '_')).flat_map(char::to_lowercase).collect()
}

/// How many letters have to be left out, added, changed or exchanged with their neighbours.
fn distance(from: &[char], to: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, &char) in from.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, &other) in to.iter().enumerate() {
            let mut best = last[column] + usize::from(char != other);
            best = best.min(last[column + 1] + 1).min(next[column] + 1);
            if row > 0 && column > 0 && char == to[column - 1] && from[row - 1] == other {
                best = best.min(before[column - 1] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut last, next);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_words_are_proposed_and_others_are_not() {
        let known = ["download", "download_piece", "info", "peers", "--output", "--no-dht", "--help"];
        for (word, expected) in [
            ("downlaod", Some("download")),
            ("downloadpiece", Some("download_piece")),
            ("Info", Some("info")),
            ("inf", Some("info")),
            ("peer", Some("peers")),
            ("--hlep", Some("--help")),
            ("--no_dht", Some("--no-dht")),
            ("--out", Some("--output")),
            ("x", None),
            ("frobnicate", None),
            ("", None),
        ] {
            assert_eq!(closest(word, known), expected, "{word}");
        }
        assert_eq!(closest(&"download".repeat(10_000), known), None);
    }
}
