//! Numbers that stories measure, and their p50 and worst over repeated runs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;

/// Figures by name; a name ends with its unit: `ready_seconds`, `write_gap_ms`.
#[derive(Default, Debug)]
pub struct Figures(Mutex<BTreeMap<String, Vec<f64>>>);

impl Figures {
    pub fn add(&self, name: &str, value: f64) {
        let mut all = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        all.entry(name.to_owned()).or_default().push(value);
    }

    /// One line per figure, smallest is best; empty without figures.
    pub fn table(&self) -> String {
        let all = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut text = String::new();
        if !all.is_empty() {
            let _ = writeln!(
                text,
                "{:<56} {:>5} {:>10} {:>10}",
                "figure", "runs", "p50", "worst"
            );
        }
        for (name, values) in all.iter() {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let (middle, worst) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() - 1]);
            let _ = writeln!(
                text,
                "{name:<56} {:>5} {middle:>10.2} {worst:>10.2}",
                sorted.len()
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn the_table_shows_the_middle_and_the_worst_of_all_runs() {
        let figures = Figures::default();
        [3.0, 1.0, 2.0]
            .into_iter()
            .for_each(|value| figures.add("ready_seconds", value));
        let table = figures.table();
        let line = table
            .lines()
            .nth(1)
            .expect("one figure makes one line under the header");
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["ready_seconds", "3", "2.00", "3.00"]
        );
    }
}
