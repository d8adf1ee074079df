//! Which backups a lineage need not keep. Pure.
//!
//! A whole backup may go when it is beyond the newest `count` or older than `age_ms`, whichever comes first.
//! The newest whole one never goes, nor one that is in use. What is unfinished goes only when nobody can
//! still be writing it. What cannot be read is not asked about: it is somebody's to look at.

use std::collections::BTreeSet;

use super::layout::BackupName;
use crate::limits::BACKUP_UNFINISHED_AGE_MS_MIN;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keep {
    /// None: any number.
    pub count: Option<usize>,
    /// None: any age.
    pub age_ms: Option<u64>,
    /// A restore reads these.
    pub in_use: BTreeSet<BackupName>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub name: BackupName,
    /// When it was created, or last written to.
    pub at_ms: u64,
    pub is_complete: bool,
}

/// Names to delete, in this order: oldest first, so that what is cut off has kept the newest.
pub fn expendable(held: &[Held], keep: &Keep, now_ms: u64) -> Vec<BackupName> {
    let mut newest_first: Vec<&Held> = held.iter().collect();
    newest_first.sort_by_key(|held| std::cmp::Reverse((held.at_ms, held.name.clone())));
    let mut complete_newer = 0;
    let mut names = Vec::new();
    for held in newest_first {
        let age_ms = now_ms.saturating_sub(held.at_ms);
        let may_go = match held.is_complete {
            true => {
                let is_last = complete_newer == 0;
                let beyond = keep.count.is_some_and(|count| complete_newer >= count)
                    || keep.age_ms.is_some_and(|most_ms| age_ms > most_ms);
                complete_newer += 1;
                beyond && !is_last
            }
            false => age_ms > BACKUP_UNFINISHED_AGE_MS_MIN,
        };
        if may_go && !keep.in_use.contains(&held.name) {
            names.push(held.name.clone());
        }
    }
    names.reverse();
    names
}

/// Of the log's segments, by their first indexes in order, those that end before the oldest backup does: no
/// restore needs them. One that a later one does not bound stays.
pub fn expendable_segments(first_indexes: &[u64], oldest_backup_index: u64) -> &[u64] {
    let next = first_indexes.iter().skip(1);
    let needless = next.take_while(|next| **next <= oldest_backup_index + 1);
    &first_indexes[..needless.count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 3600 * 1000;
    const NOW_MS: u64 = 100 * DAY_MS;

    /// `b3` is a whole backup of three days ago, `u3` an unfinished one.
    fn held(words: &str) -> Vec<Held> {
        let one = |word: &str| Held {
            name: BackupName::parse(word).expect("a name"),
            at_ms: NOW_MS - word[1..].parse::<u64>().expect("days") * DAY_MS,
            is_complete: word.starts_with('b'),
        };
        words.split_whitespace().map(one).collect()
    }

    #[test]
    fn backups_go_by_count_and_age_and_the_last_one_never() {
        let rows = [
            // held, count, days, in use, deleted
            ("b1 b2 b3", None, None, "", ""),
            ("b1 b2 b3", Some(2), None, "", "b3"),
            ("b3 b1 b2", Some(1), None, "", "b3 b2"),
            ("b1 b2 b3", Some(0), None, "", "b3 b2"),
            ("b1 b2 b3", Some(1), None, "b3", "b2"),
            ("b1 b2 b3", None, Some(2), "", "b3"),
            ("b1 b2 b3", Some(5), Some(1), "", "b3 b2"),
            ("b1 b2 b3", Some(2), Some(50), "", "b3"),
            ("b8 b9", None, Some(1), "", "b9"),
            ("b9", Some(0), Some(0), "", ""),
            // What never became a backup is neither the last good one nor counted.
            ("u1 b8 b9", Some(1), None, "", "b9"),
            ("u1 b8", Some(0), Some(1), "", ""),
            ("u6 u7 u8 b1", Some(9), None, "", "u8"),
            ("u30", None, None, "u30", ""),
        ];
        for (words, count, days, in_use, expected) in rows {
            let keep = Keep {
                count,
                age_ms: days.map(|days: u64| days * DAY_MS),
                in_use: held(in_use).into_iter().map(|held| held.name).collect(),
            };
            let deleted = expendable(&held(words), &keep, NOW_MS);
            let deleted: Vec<&str> = deleted.iter().map(BackupName::as_str).collect();
            assert_eq!(deleted.join(" "), expected, "{words} with {keep:?}");
        }
    }

    #[test]
    fn a_backup_from_a_clock_ahead_is_kept_and_deletes_nothing_by_age() {
        let ahead = Held {
            at_ms: NOW_MS + DAY_MS,
            ..held("b0").remove(0)
        };
        let keep = Keep {
            age_ms: Some(DAY_MS),
            ..Keep::default()
        };
        assert_eq!(expendable(&[ahead], &keep, NOW_MS), []);
    }

    #[test]
    fn segments_go_once_the_oldest_backup_has_all_that_is_in_them() {
        let segments = [1, 21, 41, 61];
        let rows = [
            (0, 0),
            (19, 0),
            (20, 1),
            (39, 1),
            (40, 2),
            (60, 3),
            (61, 3),
            (500, 3),
        ];
        for (oldest, count) in rows {
            assert_eq!(
                expendable_segments(&segments, oldest),
                &segments[..count],
                "{oldest}"
            );
        }
        assert_eq!(expendable_segments(&[], 9), &[] as &[u64]);
    }
}
