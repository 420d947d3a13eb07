//! Every text and code of section 13 of the API's description is met over gRPC and over JSON, or it is said why it is not met here.

use crate::coverage::Coverage;

/// Met by the calls of `script`.
const MET: Option<&str> = None;

/// The code, the text behind `etcdserver: `, and for what is not met here where else it is, or why it cannot be.
const REFUSALS: &[(&str, &str, Option<&str>)] = &[
    ("InvalidArgument", "key is not provided", MET),
    ("InvalidArgument", "key not found", MET),
    ("InvalidArgument", "value is provided", MET),
    ("InvalidArgument", "lease is provided", MET),
    ("InvalidArgument", "too many operations in txn request", MET),
    ("InvalidArgument", "duplicate key given in txn request", MET),
    (
        "InvalidArgument",
        "invalid client api version",
        Some("no client can send it: HTTP/2 refuses such a header before"),
    ),
    ("InvalidArgument", "invalid sort option", MET),
    ("InvalidArgument", "given member URLs are invalid", MET),
    ("InvalidArgument", "request is too large", MET),
    ("InvalidArgument", "user name is empty", MET),
    ("InvalidArgument", "role name is empty", MET),
    ("InvalidArgument", "authentication failed, invalid user ID or password", MET),
    ("InvalidArgument", "permission not given", MET),
    ("InvalidArgument", "invalid auth management", MET),
    (
        "InvalidArgument",
        "revision of auth store is old",
        Some("`wire::auth`: it takes a JWT from before a change"),
    ),
    ("InvalidArgument", "wrong downgrade target version format", MET),
    ("InvalidArgument", "invalid downgrade target version", MET),
    ("OutOfRange", "mvcc: required revision has been compacted", MET),
    ("OutOfRange", "mvcc: required revision is a future revision", MET),
    ("OutOfRange", "too large lease TTL", MET),
    ("ResourceExhausted", "mvcc: database space exceeded", MET),
    (
        "ResourceExhausted",
        "too many requests",
        Some("the unit tests of `api::status`: it takes a node with a full mailbox"),
    ),
    ("NotFound", "requested lease not found", MET),
    ("NotFound", "member not found", MET),
    ("FailedPrecondition", "lease already exists", MET),
    (
        "FailedPrecondition",
        "member ID already exist",
        Some("ids hold the time: two adds of one second and the same URLs, which are refused first"),
    ),
    ("FailedPrecondition", "Peer URLs already exists", MET),
    ("Unknown", "re-configuration failed due to not enough started members", MET),
    ("FailedPrecondition", "can only promote a learner member", MET),
    ("FailedPrecondition", "can only promote a learner member which is in sync with leader", MET),
    ("FailedPrecondition", "too many learner members in cluster", MET),
    ("FailedPrecondition", "cluster ID mismatch", Some("said to peers alone: the `strangers` tests")),
    ("FailedPrecondition", "root user does not exist", MET),
    ("FailedPrecondition", "root user does not have root role", MET),
    ("FailedPrecondition", "user name already exists", MET),
    ("FailedPrecondition", "user name not found", MET),
    ("FailedPrecondition", "role name already exists", MET),
    ("FailedPrecondition", "role name not found", MET),
    ("FailedPrecondition", "role is not granted to the user", MET),
    ("FailedPrecondition", "permission is not granted to the role", MET),
    ("FailedPrecondition", "authentication is not enabled", MET),
    ("FailedPrecondition", "not leader", Some("the `etcdctl` tests with three members: it takes a follower")),
    ("FailedPrecondition", "not capable", MET),
    (
        "FailedPrecondition",
        "rpc not supported for learner",
        Some("the `changes` tests: it takes a learner that runs"),
    ),
    ("FailedPrecondition", "bad leader transferee", MET),
    (
        "FailedPrecondition",
        "cluster version not found during downgrade",
        Some("the cluster's version is always known here"),
    ),
    (
        "FailedPrecondition",
        "cluster has a downgrade job in progress",
        Some("there is no version to go down to, so no job"),
    ),
    ("FailedPrecondition", "no inflight downgrade job", MET),
    ("PermissionDenied", "permission denied", MET),
    ("Unauthenticated", "invalid auth token", MET),
    ("Unavailable", "no leader", Some("the `partition` tests: it takes a member that is cut off")),
    (
        "Unavailable",
        "leader changed",
        Some("the unit tests of `api::status`: it takes an election at the right moment"),
    ),
    (
        "Unavailable",
        "server stopped",
        Some("the unit tests of `api::status`: a stopping server closes its streams mostly first"),
    ),
    ("Unavailable", "request timed out", Some("the `partition` tests: it takes a quorum that is lost")),
    (
        "Unavailable",
        "request timed out, possibly due to previous leader failure",
        Some("not told apart from `request timed out`"),
    ),
    (
        "Unavailable",
        "request timed out, possibly due to connection lost",
        Some("not told apart from `request timed out`"),
    ),
    (
        "Unavailable",
        "request timed out, waiting for the applied index took too long",
        Some("not told apart from `request timed out`"),
    ),
    ("Unavailable", "unhealthy cluster", Some("the `changes` tests: it takes a member that is down")),
    ("DataLoss", "corrupt cluster", MET),
    ("Canceled", "watch canceled", Some("etcd's client says it, not its server")),
    ("Canceled", "request canceled", Some("said to a client that has gone away")),
    ("DeadlineExceeded", "context deadline exceeded", Some("said to a client that has stopped to wait")),
    (
        "Unknown",
        "request timed out, leader transfer took too long",
        Some("it takes a follower that stops between two messages"),
    ),
];

/// Those without `etcdserver: ` in front.
const OTHERS: &[(&str, &str)] = &[
    ("Unknown", "auth: authentication failed, password was given for no password user"),
    ("Unknown", "\"leader\" field must be provided"),
    ("Unknown", "election: no leader"),
    ("Unknown", "election: not leader"),
];

pub(crate) fn check(coverage: &Coverage) {
    let mut wrong = Vec::new();
    let rows = REFUSALS.iter().map(|(code, text, why)| (*code, format!("etcdserver: {text}"), *why));
    let others = OTHERS.iter().map(|(code, text)| (*code, (*text).to_owned(), MET));
    for (code, text, why) in rows.chain(others) {
        for way in ["gRPC", "JSON"] {
            let is_met = coverage.refusals.contains(&(way, code.to_owned(), text.clone()));
            if is_met != why.is_none() {
                let word = if is_met { "is met, and listed as if it were not" } else { "is not met" };
                wrong.push(format!("{code}: {text} {word} over {way}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\n{:#?}", wrong.join("\n"), coverage.refusals);
}
