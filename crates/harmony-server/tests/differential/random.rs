//! Calls on a few keys, drawn from a seed: every option of a read and a write, transactions in transactions, leases that come and
//! go, compactions; some of them invalid.
//!
//! What etcd leaves open is not drawn (the order of rows with an equal sort key in a nested or limited read), nor what
//! `differences` lists.

use harmony_types::fake::seed::{Seed, SeededRng};
use serde_json::{Map, Value, json};

use crate::script::b;
use crate::step::{Scenario, Step, step};

const KEYS: &[&str] = &["a", "aa", "b", "c", "d", "e", "f"];
const STEPS: usize = 300;

/// Over this the transactions of a transaction are no deeper.
const DEPTH_MAX: u64 = 3;

pub(crate) fn scenario(seed: Seed) -> Scenario {
    let mut draw = Draw { rng: seed.rng() };
    let steps = (0..STEPS).map(|_| draw.step()).collect();
    Scenario { name: format!("seed {:#x}", seed.0), steps }
}

struct Draw {
    rng: SeededRng,
}

impl Draw {
    fn step(&mut self) -> Step {
        match self.rng.below(20) {
            0..=4 => step("KV/Put", self.put()),
            5..=8 => self.read(),
            9..=10 => step("KV/DeleteRange", self.delete()),
            11..=14 => step("KV/Txn", self.txn(0)),
            15 => step("Lease/LeaseGrant", json!({"ID": self.lease(), "TTL": 5000})),
            16 => step("Lease/LeaseRevoke", json!({"ID": self.lease()})),
            17 => step("Lease/LeaseTimeToLive", json!({"ID": self.lease(), "keys": self.rng.chance(1, 2)})),
            18 if self.rng.chance(1, 3) => {
                let physical = self.rng.chance(1, 2);
                step("KV/Compact", json!({"revision": self.revision(), "physical": physical}))
            }
            18 => step("Maintenance/HashKV", json!({"revision": self.revision()})),
            _ => step("Lease/LeaseLeases", json!({})),
        }
    }

    fn key(&mut self) -> Value {
        if self.rng.chance(1, 60) { b("") } else { b(self.rng.pick::<&str>(KEYS)) }
    }

    /// Of one key, of what is before another, of everything behind.
    fn end(&mut self) -> Value {
        match self.rng.below(6) {
            0..=2 => b(""),
            3 => "AA==".into(),
            _ => b(self.rng.pick::<&str>(KEYS)),
        }
    }

    fn lease(&mut self) -> u64 {
        self.rng.range(1..5)
    }

    /// Of the past mostly.
    fn revision(&mut self) -> u64 {
        if self.rng.chance(1, 3) { 0 } else { self.rng.below(STEPS as u64 / 2) }
    }

    fn put(&mut self) -> Value {
        let mut put = Map::from_iter([("key".to_owned(), self.key())]);
        let value = self.rng.below(4).to_string();
        if self.rng.chance(9, 10) {
            put.insert("value".to_owned(), b(&value));
        }
        if self.rng.chance(1, 4) {
            put.insert("lease".to_owned(), self.lease().into());
        }
        for (flag, one_in) in [("prev_kv", 2), ("ignore_value", 8), ("ignore_lease", 8)] {
            if self.rng.chance(1, one_in) {
                put.insert(flag.to_owned(), true.into());
            }
        }
        if put.contains_key("ignore_value") && self.rng.chance(3, 4) {
            put.remove("value");
        }
        put.into()
    }

    fn delete(&mut self) -> Value {
        json!({"key": self.key(), "range_end": self.end(), "prev_kv": self.rng.chance(1, 2)})
    }

    /// A read of which every row and their order is given.
    fn range(&mut self) -> Map<String, Value> {
        let mut range =
            Map::from_iter([("key".to_owned(), self.key()), ("range_end".to_owned(), self.end())]);
        if self.rng.chance(1, 3) {
            range.insert("revision".to_owned(), self.revision().into());
        }
        for (flag, one_in) in [("keys_only", 6), ("count_only", 8)] {
            if self.rng.chance(1, one_in) {
                range.insert(flag.to_owned(), true.into());
            }
        }
        if self.rng.chance(1, 3) {
            range.insert("limit".to_owned(), self.rng.below(5).into());
        }
        if self.rng.chance(1, 3) {
            range.insert("sort_order".to_owned(), self.rng.below(3).into());
        }
        for field in ["min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"] {
            if self.rng.chance(1, 8) {
                range.insert(field.to_owned(), self.revision().into());
            }
        }
        range
    }

    fn read(&mut self) -> Step {
        let mut range = self.range();
        let targets = [
            ("VERSION", "version"),
            ("CREATE", "create_revision"),
            ("MOD", "mod_revision"),
            ("VALUE", "value"),
        ];
        let by = self.rng.chance(1, 3).then(|| *self.rng.pick(&targets));
        if let Some((target, _)) = by {
            range.insert("sort_target".to_owned(), target.into());
            // With equal keys, which rows a limit leaves is open.
            range.remove("limit");
            // So is what the order of values is that are not read.
            range.remove("keys_only");
        }
        if self.rng.chance(1, 4) {
            range.insert("serializable".to_owned(), true.into());
        }
        step("KV/Range", range.into()).sorts_by(by.map(|(_, field)| field))
    }

    fn txn(&mut self, depth: u64) -> Value {
        let compare: Value = (0..self.rng.below(3)).map(|_| self.compare()).collect();
        json!({"compare": compare, "success": self.ops(depth), "failure": self.ops(depth)})
    }

    fn compare(&mut self) -> Value {
        let (target, field) = *self.rng.pick(&[
            ("VERSION", "version"),
            ("CREATE", "create_revision"),
            ("MOD", "mod_revision"),
            ("VALUE", "value"),
            ("LEASE", "lease"),
        ]);
        let value = match target {
            "VALUE" => b(&self.rng.below(4).to_string()),
            "VERSION" | "LEASE" => self.rng.below(4).into(),
            _ => self.revision().into(),
        };
        let end = if self.rng.chance(1, 4) { self.end() } else { b("") };
        json!({"key": self.key(), "range_end": end, "result": self.rng.below(4), "target": target, field: value})
    }

    fn ops(&mut self, depth: u64) -> Value {
        (0..self.rng.below(4)).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: u64) -> Value {
        match self.rng.below(if depth < DEPTH_MAX { 12 } else { 9 }) {
            0..=3 => json!({"request_put": self.put()}),
            4..=6 => json!({"request_range": self.range()}),
            7..=8 => json!({"request_delete_range": self.delete()}),
            _ => json!({"request_txn": self.txn(depth + 1)}),
        }
    }
}
