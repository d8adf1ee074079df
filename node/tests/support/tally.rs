//! Counts trials by how they ended, and says what a random test is rerun with.

use std::collections::BTreeMap;

/// The seed of this run: the variable's, or a new one.
pub fn seed(variable: &str) -> u64 {
    let seed = std::env::var(variable)
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{variable}={seed}");
    seed
}

#[derive(Default)]
pub struct Tally {
    pub trials: usize,
    pub silent: usize,
    pub rows: BTreeMap<String, usize>,
    pub wrong: Vec<String>,
}

impl Tally {
    /// A trial that ended in `row`, and whether it should have.
    pub fn note(&mut self, row: &str, is_silent: bool, wrong: Option<String>) {
        self.trials += 1;
        self.silent += usize::from(is_silent);
        *self.rows.entry(row.into()).or_default() += 1;
        self.wrong.extend(wrong.filter(|_| self.wrong.len() < 10));
    }

    pub fn add(&mut self, other: Tally) {
        self.trials += other.trials;
        self.silent += other.silent;
        for (row, count) in other.rows {
            *self.rows.entry(row).or_default() += count;
        }
        self.wrong.extend(other.wrong);
    }

    /// No trial ended as it should not.
    pub fn check(&self) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        assert_eq!(self.silent, 0);
    }
}
