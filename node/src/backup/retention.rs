//! Which backups a lineage need not keep. Pure.
//!
//! A whole backup may go when it is beyond the newest `count` or older than `age_ms`, whichever comes first.
//! The newest whole one, by the log and not by anybody's clock, never goes, nor one that is in use. What is
//! unfinished goes only when nobody can still be writing it. What cannot be read is not asked about: it is
//! somebody's to look at.

use std::collections::BTreeSet;

use super::layout::BackupName;
use crate::limits::{BACKUP_SEGMENTS_BESIDE_MAX, BACKUP_UNFINISHED_AGE_MS_MIN};

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
    /// Of the last log entry in it; 0 while it is unfinished.
    pub index: u64,
    /// When it was created, or last written to.
    pub at_ms: u64,
    pub is_complete: bool,
}

/// Names to delete, in this order: oldest first, so that what is cut off has kept the newest.
pub fn expendable(held: &[Held], keep: &Keep, now_ms: u64) -> Vec<BackupName> {
    let mut newest_first: Vec<&Held> = held.iter().collect();
    newest_first.sort_by_key(|held| std::cmp::Reverse((held.index, held.at_ms, held.name.clone())));
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

/// Of the log's segments, by their first indexes in order, those that no restore looks at. It begins with the
/// newest one that starts no later than right behind its backup. With chains side by side one before that may
/// end later: as many stay as a restore tries where a chain ends.
pub fn expendable_segments(first_indexes: &[u64], oldest_backup_index: u64) -> &[u64] {
    let later = first_indexes.iter().skip(1 + BACKUP_SEGMENTS_BESIDE_MAX);
    let needless = later.take_while(|later| **later <= oldest_backup_index + 1);
    &first_indexes[..needless.count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 3600 * 1000;
    const NOW_MS: u64 = 100 * DAY_MS;

    /// `b3` is a whole backup of three days ago, `u3` an unfinished one.
    fn held(words: &str) -> Vec<Held> {
        let one = |word: &str| {
            let days: u64 = word[1..].parse().expect("days");
            let is_complete = word.starts_with('b');
            Held {
                name: BackupName::parse(word).expect("a name"),
                index: if is_complete { 1_000 - days } else { 0 },
                at_ms: NOW_MS - days * DAY_MS,
                is_complete,
            }
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
    fn the_newest_is_the_one_that_holds_most_whatever_the_clocks_said() {
        let mut all = held("b1 b2 b3");
        all[2].at_ms = NOW_MS + DAY_MS;
        for (count, expected) in [(1, "b3 b2"), (2, "b3")] {
            let keep = Keep {
                count: Some(count),
                ..Keep::default()
            };
            let deleted = expendable(&all, &keep, NOW_MS);
            let deleted: Vec<&str> = deleted.iter().map(BackupName::as_str).collect();
            assert_eq!(deleted.join(" "), expected, "{count}");
        }
    }

    #[test]
    fn segments_go_once_the_oldest_backup_has_all_that_is_in_them() {
        let segments: Vec<u64> = (0..12).map(|n| 1 + 20 * n).collect();
        let rows = [
            // Each one from 9 on lets one more go.
            (0, 0),
            (179, 0),
            (180, 1),
            (199, 1),
            (200, 2),
            (220, 3),
            (221, 3),
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
        // The one from 21 may go to 50 and be all that leads on from there.
        let side_by_side = [21, 25, 32, 51, 81];
        for oldest in [24, 31, 40] {
            assert_eq!(expendable_segments(&side_by_side, oldest), &[] as &[u64]);
        }
    }
}
