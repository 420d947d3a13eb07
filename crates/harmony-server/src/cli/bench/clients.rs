//! The closed loop: clients on one thread, each with one request under way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::Connection;
use super::workload::{SplitMix, Workload};
use crate::client::{ClientError, Endpoint};

/// How often the progress bar moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Longest time a histogram can hold; longer requests count as this long. The request timeout ends them before.
const LATENCY_MAX: Duration = Duration::from_secs(3600);

/// How many send how much to whom.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) connections: usize,
    pub(super) clients: usize,
    pub(super) total: u64,
    pub(super) keys: u64,
    pub(super) sequential: bool,
    pub(super) seed: u64,
    pub(super) dial_timeout: Duration,
    pub(super) request_timeout: Duration,
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Tally {
    /// Of answered requests, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Failed requests by what was said.
    pub(super) errors: BTreeMap<String, u64>,
    /// Answered, but without the key.
    pub(super) missing: u64,
    /// From the first request to the last answer.
    pub(super) elapsed: Duration,
    /// Ended by Ctrl-C.
    pub(super) interrupted: bool,
}

impl Tally {
    /// Failed requests.
    pub(super) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// One of the errors, if there are any.
    pub(super) fn first_error(&self) -> Option<&str> {
        self.errors.keys().next().map(String::as_str)
    }
}

/// What the clients share.
struct Shared {
    plan: Plan,
    workload: Rc<Workload>,
    next: RefCell<Source>,
    tally: RefCell<Tally>,
}

/// Hands out the requests' numbers.
struct Source {
    left: u64,
    position: u64,
    random: SplitMix,
}

impl Shared {
    /// The key of the next request, while there is one.
    fn next_key(&self) -> Option<u64> {
        let mut source = self.next.borrow_mut();
        source.left = source.left.checked_sub(1)?;
        source.position += 1;
        if self.plan.sequential {
            Some((source.position - 1) % self.plan.keys)
        } else {
            Some(source.random.below(self.plan.keys))
        }
    }

    fn record(&self, took: Duration, outcome: Result<usize, String>) {
        let mut tally = self.tally.borrow_mut();
        match outcome {
            Ok(bytes) => {
                tally.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                tally.missing += u64::from(bytes < self.workload.answer_bytes_min());
            }
            Err(error) => *tally.errors.entry(error).or_insert(0) += 1,
        }
    }
}

/// Connects, runs all clients to the end of the plan or until Ctrl-C, and returns what they measured. Needs a
/// [`tokio::task::LocalSet`] around it.
///
/// # Errors
/// [`ClientError::Unreachable`] when a connection cannot be made at the start.
pub(super) async fn run(plan: &Plan, workload: Rc<Workload>, title: &str) -> Result<Tally, ClientError> {
    let mut connections = Vec::with_capacity(plan.connections);
    for endpoint in plan.endpoints.iter().cycle().take(plan.connections) {
        let opened = Connection::open(endpoint.clone(), workload.path(), plan.dial_timeout).await;
        let connection =
            opened.map_err(|reason| ClientError::Unreachable(format!("{endpoint}: {reason}")))?;
        connections.push(Rc::new(connection));
    }
    let shared = Rc::new(Shared {
        plan: plan.clone(),
        workload,
        next: RefCell::new(Source { left: plan.total, position: 0, random: SplitMix(plan.seed) }),
        tally: RefCell::new(Tally {
            latency: histogram(),
            errors: BTreeMap::new(),
            missing: 0,
            elapsed: Duration::ZERO,
            interrupted: false,
        }),
    });
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for connection in connections.iter().cycle().take(plan.clients) {
        clients.spawn_local(client(Rc::clone(&shared), Rc::clone(connection)));
    }
    let bar = progress_bar(plan.total, title);
    let interrupted = wait(&mut clients, &shared, &bar).await;
    let elapsed = began.elapsed();
    bar.finish_and_clear();
    // Dropping the clients' set ends those that still wait for an answer; they no longer count.
    clients.shutdown().await;
    let shared = Rc::into_inner(shared).expect("all clients have ended");
    Ok(Tally { elapsed, interrupted, ..shared.tally.into_inner() })
}

/// One client.
async fn client(shared: Rc<Shared>, connection: Rc<Connection>) {
    while let Some(key) = shared.next_key() {
        let request = shared.workload.request(key);
        let sent = Instant::now();
        let answer = tokio::time::timeout(shared.plan.request_timeout, connection.call(request)).await;
        let outcome =
            answer.unwrap_or_else(|_| Err(format!("no answer within {:?}", shared.plan.request_timeout)));
        shared.record(sent.elapsed(), outcome);
    }
}

/// Waits for all clients, or for Ctrl-C: true then.
async fn wait(clients: &mut JoinSet<()>, shared: &Shared, bar: &ProgressBar) -> bool {
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    loop {
        tokio::select! {
            ended = clients.join_next() => match ended {
                None => return false,
                Some(ended) => ended.expect("a client does not panic"),
            },
            _ = &mut interrupt => return true,
            _ = tick.tick() => {
                let tally = shared.tally.borrow();
                bar.set_position(tally.latency.len() + tally.failed());
            }
        }
    }
}

/// On a terminal only, on standard error: results are all that standard output has.
fn progress_bar(total: u64, title: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}")
        .expect("the template is a constant that parses");
    ProgressBar::new(total).with_style(style).with_prefix(title.to_owned())
}

fn histogram() -> Histogram<u64> {
    let max = u64::try_from(LATENCY_MAX.as_nanos()).expect("an hour in nanoseconds");
    Histogram::new_with_bounds(1000, max, 3).expect("the bounds are constants that make sense")
}
