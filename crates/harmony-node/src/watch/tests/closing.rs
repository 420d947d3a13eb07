//! The end of a hub: the last word is that it is closed, and nothing is done for anybody after it.

use super::*;

/// A member with a hub, one watcher of every key that has something queued, and one that waits for a read.
struct Closing {
    model: Model,
    member: Member,
    hub: WatchHub,
    stream: WatchStream,
    wakes: Arc<Wakes>,
}

impl Closing {
    fn new() -> Self {
        let (model, member) = (Model::default(), Member::open(MemoryFileSystem::new(), 0));
        let hub = WatchHub::new(Arc::clone(&member.storage) as _, options());
        let wakes = Arc::new(Wakes::default());
        let stream = hub.stream(Arc::clone(&wakes) as _);
        let mut closing = Self { model, member, hub, stream, wakes };
        closing.put();
        closing.hub.publish_step();
        closing
    }

    fn put(&mut self) {
        let revision = self.model.state().0 + 1;
        let put = Put { key: "a".into(), value: "v".into(), ..Put::default() };
        self.model.push(CommandKind::Put(put), revision, 0);
        self.member.apply(&self.model.log, self.model.log.len());
    }

    fn watch(&self, start: Option<u64>) -> Result<WatchId, WatchRefusal> {
        let request =
            WatchRequest { keys: KeyRange::all(), start: start.map(Revision), ..WatchRequest::default() };
        self.stream.create(&request)
    }
}

#[test]
fn closed_is_the_last_that_a_stream_hears() {
    let mut closing = Closing::new();
    let live = closing.watch(None).unwrap();
    while !closing.stream.poll(u64::MAX).is_empty() {}
    closing.put();
    // Still on its way into the ring.
    closing.hub.close();
    assert_eq!(closing.wakes.0.load(Ordering::Relaxed), 1);
    closing.hub.publish_step();
    closing.stream.cancel(live);
    closing.stream.request_progress();
    assert_eq!(closing.stream.poll(u64::MAX), [WatchMessage::Closed]);
    assert_eq!(closing.stream.poll(u64::MAX), []);
    let late = closing.hub.stream(Arc::clone(&closing.wakes) as _);
    assert_eq!(late.poll(1), [WatchMessage::Closed]);
    assert_eq!(late.poll(1), []);
    assert_eq!(closing.wakes.0.load(Ordering::Relaxed), 1, "once");
}

#[test]
fn a_closed_hub_reads_no_history_for_those_who_were_behind() {
    let closing = Closing::new();
    closing.watch(Some(2)).unwrap();
    closing.hub.close();
    assert!(!closing.hub.history_step(), "a long history would hold up the end of the process");
    assert_eq!(closing.hub.metrics().history_reads.get(), 0);
}

#[test]
fn a_refused_watcher_has_no_events_collected() {
    let mut closing = Closing::new();
    closing.hub.close();
    assert_eq!(closing.watch(None), Err(WatchRefusal::Closed));
    for _ in 0..10 {
        closing.put();
    }
    assert_eq!(closing.hub.event_bytes(), 0);
}
