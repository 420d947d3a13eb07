//! Tables: every figure, and what is asked and whether it is met.

use std::collections::BTreeMap;

use bench_harness::stats::{Spread, grouped};
use serde_json::{Value, json};

use crate::row::{Asked, Row, requirements};

/// What one measurement of a row gave, in the order in which it is shown.
pub type Figures = Vec<(&'static str, f64)>;

/// All figures, one measurement of a row for each round.
#[derive(Default)]
pub struct Results(BTreeMap<Row, Vec<Figures>>);

impl Results {
    pub fn push(&mut self, row: Row, figures: Figures) {
        self.0.entry(row).or_default().push(figures);
    }

    fn spread(&self, row: Row, name: &str) -> Option<Spread> {
        Spread::of(self.0.get(&row)?.iter().filter_map(|round| find(round, name)))
    }

    /// Every figure, as a table of Markdown.
    pub fn table(&self) -> String {
        let mut lines =
            vec!["| row | figure | median | all rounds |".to_owned(), "| --- | --- | --- | --- |".to_owned()];
        for (row, rounds) in &self.0 {
            for (name, _) in rounds.first().into_iter().flatten() {
                let Some(spread) = self.spread(*row, name) else { continue };
                let all = if spread.min < spread.max {
                    format!("{} to {}", number(spread.min), number(spread.max))
                } else {
                    String::new()
                };
                lines.push(format!("| {} | {name} | {} | {all} |", row.key(), number(spread.median)));
            }
        }
        lines.join("\n")
    }

    /// What is asked, and whether it is met.
    pub fn verdicts(&self) -> String {
        let mut lines = vec![
            "| row | asked | measured, median (single rounds) | |".to_owned(),
            "| --- | --- | --- | --- |".to_owned(),
        ];
        for asked in requirements() {
            if let Some(rounds) = self.0.get(&asked.row) {
                lines.push(self.verdict(&asked, rounds));
            }
        }
        lines.join("\n")
    }

    fn verdict(&self, asked: &Asked, rounds: &[Figures]) -> String {
        let line = |measured: String, verdict: &str| {
            format!("| {} | {} | {measured} | {verdict} |", asked.row.key(), asked.asked)
        };
        let best = asked.over.iter().copied().max_by(|a, b| {
            let median = |name: &str| self.spread(asked.row, name).map_or(0.0, |spread| spread.median);
            median(a).total_cmp(&median(b))
        });
        let of_round = |round: &Figures| {
            let figure = find(round, asked.figure)?;
            match best {
                Some(peer) => Some(figure / find(round, peer)?),
                None => Some(figure),
            }
        };
        let Some(spread) = Spread::of(rounds.iter().filter_map(of_round)) else {
            return line("not measured".to_owned(), "");
        };
        let verdict = if asked.bound.holds(spread.median) { "met" } else { "NOT MET" };
        let Spread { median, min, max } = spread;
        let text = format!("{} {} ({} to {})", number(median), asked.unit, number(min), number(max));
        line(text, verdict)
    }

    /// Every figure of every round, for programs.
    pub fn json(&self) -> Value {
        let round = |figures: &Figures| {
            figures
                .iter()
                .map(|(name, figure)| ((*name).to_owned(), json!(figure)))
                .collect::<serde_json::Map<_, _>>()
        };
        let row = |(row, rounds): (&Row, &Vec<Figures>)| json!({ "row": row.key(), "rounds": rounds.iter().map(round).collect::<Vec<_>>() });
        self.0.iter().map(row).collect()
    }
}

fn find(figures: &Figures, name: &str) -> Option<f64> {
    figures.iter().find(|(found, _)| *found == name).map(|(_, figure)| *figure)
}

/// Three digits that count, or all before the point.
fn number(figure: f64) -> String {
    if 100.0 <= figure.abs() {
        return grouped(figure);
    }
    format!("{figure:.*}", if figure.abs() < 10.0 { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{APPLY, Bound, NAIVE, NAIVE_LARGE};

    #[test]
    fn a_ratio_is_taken_in_each_round_over_the_best_peer() {
        let mut results = Results::default();
        for (ours, small, large) in [(300.0, 50.0, 100.0), (330.0, 60.0, 100.0), (200.0, 500.0, 100.0)] {
            results.push(Row::Apply, vec![(APPLY, ours), (NAIVE, small), (NAIVE_LARGE, large)]);
        }
        let text = results.verdicts();
        assert!(
            text.contains("| apply | sustained >= 3 x naive redb | 3.00 x (2.00 to 3.30) | met |"),
            "{text}"
        );
        assert!(text.contains("| apply | memtable insert <= 2 us | not measured |  |"), "{text}");
        assert!(!text.contains("| get |"), "{text}");
    }

    #[test]
    fn a_bound_is_on_one_side() {
        assert!(Bound::AtLeast(3.0).holds(3.0) && !Bound::AtLeast(3.0).holds(2.9));
        assert!(Bound::AtMost(3.0).holds(3.0) && !Bound::AtMost(3.0).holds(3.1));
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 1.234, 12.34, 1234.5].map(number), ["0.00", "1.23", "12.3", "1,234"]);
    }
}
