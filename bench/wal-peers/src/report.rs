//! Tables: every figure, and what issue and documentation ask for.

use std::collections::BTreeMap;

use bench_harness::stats::{Spread, grouped};
use serde_json::{Value, json};

use crate::peer::Peer;
use crate::stats::Sample;
use crate::workload::Workload;

/// All samples, one for each round.
#[derive(Default)]
pub struct Results(BTreeMap<(Workload, Peer), Vec<Sample>>);

/// What is compared.
#[derive(Clone, Copy)]
enum Figure {
    PerSecond,
    P50,
}

/// What the log must reach.
struct Requirement {
    workload: Workload,
    figure: Figure,
    /// The best of these counts.
    peers: &'static [Peer],
    /// Ours over theirs at least for entries a second, at most for a latency.
    bound: f64,
}

const PEERS: &[Peer] = &[Peer::RaftEngine, Peer::OkayWal];
const RAFT: &[Peer] = &[Peer::RaftEngine];

fn requirements(journaled: bool) -> Vec<Requirement> {
    let row = |workload, figure, peers, bound| Requirement { workload, figure, peers, bound };
    let rate = Figure::PerSecond;
    let w64 = if journaled { 3.0 } else { 1.7 };
    vec![
        row(Workload::W1, Figure::P50, &[Peer::Raw], 1.10),
        row(Workload::W64, rate, RAFT, w64),
        row(Workload::W64, rate, &[Peer::OkayWal], 1.3),
        row(Workload::Gc16, rate, PEERS, 1.3),
        row(Workload::Un256, rate, RAFT, 3.0),
        row(Workload::Un4k, rate, RAFT, 2.0),
        row(Workload::Recover, rate, RAFT, 2.5),
        row(Workload::Random, rate, RAFT, 3.0),
        row(Workload::Recover1, rate, RAFT, 2.5),
        row(Workload::Random1, rate, RAFT, 3.0),
    ]
}

/// Shown beside, with nothing asked.
const SHOWN: &[(Workload, Peer)] = &[
    (Workload::W1, Peer::RaftEngine),
    (Workload::W1, Peer::OkayWal),
    (Workload::W64, Peer::RaftEngineNoLz4),
    // What a file allows that is only overwritten: nobody who calls `fdatasync` can be much above 1.
    (Workload::W64, Peer::Raw),
    (Workload::Recover, Peer::RaftEngineNoLz4),
    (Workload::Random, Peer::RaftEngineNoLz4),
    (Workload::Recover, Peer::OkayWal),
    (Workload::Random, Peer::OkayWal),
    (Workload::RecycledW1, Peer::RaftEngine),
    (Workload::RecycledW64, Peer::RaftEngine),
    (Workload::RecycledW64, Peer::RaftEngineNoLz4),
    (Workload::RecycledGc16, Peer::RaftEngine),
    (Workload::RecycledW1, Peer::OkayWal),
    (Workload::RecycledW64, Peer::OkayWal),
    (Workload::RecycledGc16, Peer::OkayWal),
];

impl Results {
    pub fn push(&mut self, workload: Workload, peer: Peer, sample: Sample) {
        self.0.entry((workload, peer)).or_default().push(sample);
    }

    fn spread(
        &self,
        workload: Workload,
        peer: Peer,
        figure: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<Spread> {
        Spread::of(self.0.get(&(workload, peer))?.iter().filter_map(figure))
    }

    fn figure(&self, workload: Workload, peer: Peer, figure: Figure) -> Option<Spread> {
        self.spread(workload, peer, |sample| figure.of(sample))
    }

    /// Ours over theirs: of the medians, and the smallest and largest of single rounds.
    fn ratio(&self, workload: Workload, peer: Peer, figure: Figure) -> Option<Spread> {
        let ours = self.0.get(&(workload, Peer::Harmony))?;
        let theirs = self.0.get(&(workload, peer))?;
        let rounds = ours.iter().zip(theirs).filter_map(|(a, b)| Some(figure.of(a)? / figure.of(b)?));
        let rounds = Spread::of(rounds)?;
        let median = self.figure(workload, Peer::Harmony, figure)?.median
            / self.figure(workload, peer, figure)?.median;
        Some(Spread { median, ..rounds })
    }

    /// Every figure, as a table of Markdown.
    pub fn table(&self) -> String {
        let mut lines = vec![
            "| workload | peer | entries/s, median (all rounds) | p50 us | p99 us | sync at the end, ms |"
                .to_owned(),
            "| --- | --- | --- | --- | --- | --- |".to_owned(),
        ];
        for ((workload, peer), samples) in &self.0 {
            let Some(rate) = self.figure(*workload, *peer, Figure::PerSecond) else { continue };
            let cell = |figure: fn(&Sample) -> Option<f64>, digits: usize| {
                Spread::of(samples.iter().filter_map(figure))
                    .map_or_else(String::new, |spread| format!("{:.digits$}", spread.median))
            };
            lines.push(format!(
                "| {} | {} | {} ({} to {}) | {} | {} | {} |",
                workload.key(),
                peer.name(),
                grouped(rate.median),
                grouped(rate.min),
                grouped(rate.max),
                cell(|sample| sample.p50_us, 1),
                cell(|sample| sample.p99_us, 1),
                cell(|sample| sample.last_sync_ms, 0),
            ));
        }
        lines.join("\n")
    }

    /// What is asked, and whether it is met; then the other ratios.
    pub fn verdicts(&self, journaled: bool) -> String {
        let mut lines = vec![
            "| workload | asked | measured, median (single rounds) | |".to_owned(),
            "| --- | --- | --- | --- |".to_owned(),
        ];
        for row in requirements(journaled) {
            let Some(peer) = self.best(&row) else { continue };
            let Some(ratio) = self.ratio(row.workload, peer, row.figure) else { continue };
            let among = if 1 < row.peers.len() { ", the best peer" } else { "" };
            let (asked, met) = match row.figure {
                Figure::PerSecond => {
                    (format!(">= {} x {}{among}", row.bound, peer.name()), row.bound <= ratio.median)
                }
                Figure::P50 => {
                    (format!("p50 <= {} x {}{among}", row.bound, peer.name()), ratio.median <= row.bound)
                }
            };
            let verdict = if met { "met" } else { "NOT MET" };
            lines.push(format!("| {} | {asked} | {} | {verdict} |", row.workload.key(), ratio_text(ratio)));
        }
        for (workload, peer) in SHOWN {
            if let Some(ratio) = self.ratio(*workload, *peer, Figure::PerSecond) {
                lines.push(format!(
                    "| {} | (beside {}) | {} | |",
                    workload.key(),
                    peer.name(),
                    ratio_text(ratio)
                ));
            }
        }
        lines.join("\n")
    }

    fn best(&self, row: &Requirement) -> Option<Peer> {
        let median = |peer: Peer| Some((peer, self.figure(row.workload, peer, row.figure)?.median));
        let medians = row.peers.iter().filter_map(|peer| median(*peer));
        medians.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(peer, _)| peer)
    }

    /// Every sample, for programs.
    pub fn json(&self) -> Value {
        let sample = |sample: &Sample| {
            json!({
                "entries_per_s": sample.per_s,
                "p50_us": sample.p50_us,
                "p99_us": sample.p99_us,
                "last_sync_ms": sample.last_sync_ms,
            })
        };
        let row = |((workload, peer), samples): (&(Workload, Peer), &Vec<Sample>)| {
            json!({
                "workload": workload.key(),
                "peer": peer.name(),
                "rounds": samples.iter().map(sample).collect::<Vec<_>>(),
            })
        };
        self.0.iter().map(row).collect()
    }
}

impl Figure {
    fn of(self, sample: &Sample) -> Option<f64> {
        match self {
            Self::PerSecond => Some(sample.per_s),
            Self::P50 => sample.p50_us,
        }
    }
}

fn ratio_text(ratio: Spread) -> String {
    format!("{:.2} x ({:.2} to {:.2})", ratio.median, ratio.min, ratio.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_met_by_the_median_against_the_best_peer() {
        let mut results = Results::default();
        for (peer, rates) in [
            (Peer::Harmony, [130.0, 131.0, 90.0]),
            (Peer::RaftEngine, [100.0, 100.0, 100.0]),
            (Peer::OkayWal, [50.0, 50.0, 50.0]),
        ] {
            for rate in rates {
                results.push(Workload::Gc16, peer, Sample::new(rate));
            }
        }
        let text = results.verdicts(false);
        assert!(
            text.contains("| gc16 | >= 1.3 x raft-engine, the best peer | 1.30 x (0.90 to 1.31) | met |"),
            "{text}"
        );
        results.push(Workload::Gc16, Peer::Harmony, Sample::new(10.0));
        assert!(results.verdicts(false).contains("NOT MET"));
    }
}
