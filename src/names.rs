//! Names that a user may have meant.

/// Up to three of `names` within a few edits of `name`, nearest first.
pub fn near<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    const SHOWN: usize = 3;
    const LONGEST: usize = 256;
    let lower = name.to_lowercase();
    let limit = 1 + name.chars().count() / 4;
    let mut found: Vec<(usize, &str)> = names
        .filter(|n| n.len() <= LONGEST && name.len() <= LONGEST && n.len().abs_diff(name.len()) <= limit)
        .map(|n| (edit_distance(&lower, &n.to_lowercase()), n))
        .filter(|(d, _)| *d <= limit)
        .collect();
    found.sort_unstable();
    found.dedup();
    found.into_iter().take(SHOWN).map(|(_, n)| n.to_owned()).collect()
}

/// Insertions, deletions and replacements that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replace = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_come_nearest_first() {
        let names = ["scores", "score", "boxes", "stores"];
        assert_eq!(near("scors", names.into_iter()), ["score", "scores", "stores"]);
        assert!(near("zzzzzz", names.into_iter()).is_empty());
    }

    #[test]
    fn edit_distance_counts_single_edits() {
        for (a, b, want) in [("", "abc", 3), ("kitten", "sitting", 3), ("x", "x", 0), ("ab", "ba", 2)] {
            assert_eq!(edit_distance(a, b), want, "{a} {b}");
        }
    }
}
