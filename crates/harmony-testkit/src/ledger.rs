//! A workload that remembers what was acknowledged, and the check that nothing of it was lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use harmony_types::testing::TestError;
use harmony_types::txn::{PutOutcome, RangeOutcome};
use harmony_types::{KeyValue, Revision};

use crate::check::linearizable;
use crate::check::search::Limits;
use crate::client::Client;
use crate::history::recorder::Recorder;
use crate::history::{ClientId, History, Reply, put, read};

/// What is known of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    /// Acknowledged at this revision.
    Acknowledged(Revision),
    /// Sent, answered by an error that leaves the outcome open.
    Unknown,
}

/// Every put sent, each to a key of its own, with what became of it.
#[derive(Default)]
pub struct Ledger {
    writes: Mutex<BTreeMap<Bytes, Write>>,
    next: AtomicU64,
    newest: AtomicU64,
    stopped: AtomicBool,
    /// The puts, and the reads of [`Ledger::check`].
    recorder: Recorder,
}

impl Ledger {
    /// Nothing sent yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Bytes, Write>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts to keys of their own through `client` until [`Ledger::stop`] or the first error.
    ///
    /// # Errors
    /// A revision went back, or was given out twice.
    pub fn write_until_error(&self, client: &dyn Client) -> Result<(), TestError> {
        while !self.stopped.load(Ordering::Relaxed) {
            if !self.write_one(client)? {
                break;
            }
        }
        Ok(())
    }

    /// One put to a key of its own; whether it was acknowledged.
    ///
    /// # Errors
    /// The revision is not above all that were acknowledged before the put was sent.
    pub fn write_one(&self, client: &dyn Client) -> Result<bool, TestError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let key = Bytes::from(format!("ledger/{number:08}"));
        // In the ledger before it is sent: whatever happens now, its outcome is not "never written".
        self.lock().insert(key.clone(), Write::Unknown);
        let newest_before = Revision(self.newest.load(Ordering::SeqCst));
        let sent = self.recorder.send(client_of(number), None, put(key.clone(), value_of(&key)));
        let Ok(revision) = client.put(&key, &value_of(&key)) else { return Ok(false) };
        self.recorder.answered(sent, Some(revision), Reply::Put(PutOutcome::default()));
        if revision <= newest_before {
            let key = String::from_utf8_lossy(&key).into_owned();
            return Err(format!(
                "{key} got revision {revision}, but {newest_before} was acknowledged before"
            )
            .into());
        }
        self.newest.fetch_max(revision.0, Ordering::SeqCst);
        self.lock().insert(key, Write::Acknowledged(revision));
        Ok(true)
    }

    /// Ends [`Ledger::write_until_error`] in all threads.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Lets writers run again.
    pub fn resume(&self) {
        self.stopped.store(false, Ordering::Relaxed);
    }

    /// How many puts were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.lock().values().filter(|write| matches!(write, Write::Acknowledged(_))).count()
    }

    /// Reads every key: acknowledged ones are there with their value and revision; unknown ones are whole or absent, and no
    /// two keys share a revision.
    ///
    /// # Errors
    /// The first write that is lost, changed or torn; or a read that failed.
    pub fn check(&self, client: &dyn Client) -> Result<(), TestError> {
        let writes = self.lock().clone();
        let mut owners: BTreeMap<i64, Bytes> = BTreeMap::new();
        for (key, write) in &writes {
            // A read that fails says nothing.
            let sent = self.recorder.send(READER, None, read(key.clone(), Bytes::new()));
            let found = client.get(key)?;
            let outcome = RangeOutcome {
                kvs: found.iter().cloned().collect(),
                more: false,
                count: i64::from(found.is_some()),
            };
            self.recorder.answered(sent, None, Reply::Range(outcome));
            check_one(key, *write, found.as_ref())?;
            let Some(kv) = found else { continue };
            if let Some(other) = owners.insert(kv.mod_revision, key.clone()) {
                return Err(format!("{key:?} and {other:?} share revision {}", kv.mod_revision).into());
            }
        }
        Ok(())
    }

    /// All puts and all reads of [`Ledger::check`], as a checker wants them.
    #[must_use]
    pub fn history(&self) -> History {
        self.recorder.history()
    }

    /// Checks that [`Ledger::history`] is linearizable: what was read agrees with what was put, in time and by revision, over all
    /// keys together.
    ///
    /// # Errors
    /// The smallest part that is not, or that the check gave up.
    pub fn check_history(&self) -> Result<(), TestError> {
        linearizable::check(&self.history(), Limits::default()).into_result()
    }
}

/// Whoever reads in [`Ledger::check`].
const READER: ClientId = ClientId(u32::MAX);

/// Every put is a client of its own: that of a lost answer may overlap all that follow.
fn client_of(number: u64) -> ClientId {
    ClientId(u32::try_from(number).unwrap_or(u32::MAX - 1))
}

fn value_of(key: &[u8]) -> Vec<u8> {
    [b"value of ", key].concat()
}

fn check_one(key: &Bytes, write: Write, found: Option<&KeyValue>) -> Result<(), TestError> {
    let Some(kv) = found else {
        return match write {
            Write::Acknowledged(revision) => {
                Err(format!("{key:?}: acknowledged at revision {revision}, now gone").into())
            }
            Write::Unknown => Ok(()),
        };
    };
    if kv.value != value_of(key) {
        return Err(format!("{key:?}: has the value {:?}", kv.value).into());
    }
    match write {
        Write::Acknowledged(revision) if kv.mod_revision != revision.as_i64() || kv.version != 1 => {
            Err(format!(
                "{key:?}: acknowledged at revision {revision}, found at {} as version {}",
                kv.mod_revision, kv.version
            )
            .into())
        }
        Write::Unknown if kv.version != 1 => {
            Err(format!("{key:?}: sent once, written {} times", kv.version).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{NodeStatus, StateHash};

    /// A store that can be told to forget, to go back, or to fail.
    #[derive(Default)]
    struct Store {
        kvs: Mutex<BTreeMap<Bytes, KeyValue>>,
        revision: AtomicU64,
        fails: AtomicBool,
    }

    impl Client for Store {
        fn put(&self, key: &[u8], value: &[u8]) -> Result<Revision, TestError> {
            let revision = Revision(self.revision.fetch_add(1, Ordering::SeqCst) + 2);
            let kv = KeyValue {
                key: Bytes::copy_from_slice(key),
                value: Bytes::copy_from_slice(value),
                create_revision: revision.as_i64(),
                mod_revision: revision.as_i64(),
                version: 1,
                lease: 0,
            };
            self.kvs.lock().unwrap().insert(kv.key.clone(), kv);
            if self.fails.load(Ordering::SeqCst) { Err("lost the answer".into()) } else { Ok(revision) }
        }

        fn get(&self, key: &[u8]) -> Result<Option<KeyValue>, TestError> {
            Ok(self.kvs.lock().unwrap().get(key).cloned())
        }

        fn delete(&self, _key: &[u8]) -> Result<Revision, TestError> {
            Err("not needed".into())
        }

        fn status(&self) -> Result<NodeStatus, TestError> {
            Err("not needed".into())
        }

        fn state_hash(&self, _revision: Revision) -> Result<StateHash, TestError> {
            Err("not needed".into())
        }
    }

    fn written(count: usize) -> (Store, Ledger) {
        let (store, ledger) = (Store::default(), Ledger::new());
        for _ in 0..count {
            assert!(ledger.write_one(&store).unwrap());
        }
        ledger.check(&store).unwrap();
        (store, ledger)
    }

    #[test]
    fn a_lost_write_is_found() {
        let (store, ledger) = written(3);
        store.kvs.lock().unwrap().pop_first();
        assert!(ledger.check(&store).unwrap_err().to_string().contains("now gone"));
    }

    #[test]
    fn a_changed_write_is_found() {
        let (store, ledger) = written(1);
        let change = |change: fn(&mut KeyValue)| {
            store.kvs.lock().unwrap().values_mut().for_each(change);
            ledger.check(&store).unwrap_err().to_string()
        };
        assert!(change(|kv| kv.mod_revision += 1).contains("found at 3"));
        assert!(change(|kv| kv.value = "torn".into()).contains("has the value"));
    }

    #[test]
    fn an_unknown_write_may_be_there_or_not_but_once() {
        let (store, ledger) = written(1);
        store.fails.store(true, Ordering::SeqCst);
        assert!(!ledger.write_one(&store).unwrap());
        ledger.check(&store).unwrap();
        store.kvs.lock().unwrap().values_mut().for_each(|kv| kv.version = 2);
        assert!(ledger.check(&store).is_err());
        store.kvs.lock().unwrap().retain(|_, kv| kv.mod_revision == 2);
        store.kvs.lock().unwrap().values_mut().for_each(|kv| kv.version = 1);
        ledger.check(&store).unwrap();
        assert_eq!(ledger.acknowledged(), 1);
    }

    #[test]
    fn the_history_of_puts_and_reads_is_judged_as_a_whole() {
        let (store, ledger) = written(3);
        store.fails.store(true, Ordering::SeqCst);
        assert!(!ledger.write_one(&store).unwrap());
        ledger.check(&store).unwrap();
        ledger.check_history().unwrap();
        // Seen, and then gone: a loss that no key alone can tell, as its outcome was unknown.
        store.kvs.lock().unwrap().pop_last();
        ledger.check(&store).unwrap();
        let report = ledger.check_history().unwrap_err().to_string();
        assert!(report.contains("ledger/00000003"), "{report}");
        assert_eq!(ledger.history().operations.len(), 4 + 3 + 4 + 4);
    }

    #[test]
    fn a_revision_that_goes_back_is_found() {
        let (store, ledger) = written(2);
        store.revision.store(0, Ordering::SeqCst);
        assert!(ledger.write_one(&store).unwrap_err().to_string().contains("was acknowledged before"));
    }
}
