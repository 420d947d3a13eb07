//! Leases as JSON. `etcdctl` puts the header's fields beside the others here.

use serde::Serialize;

use super::{Base64, Header, header};
use crate::proto::etcdserverpb as pb;

/// The answer to a grant.
#[derive(Serialize)]
pub(crate) struct Granted<'a> {
    #[serde(flatten)]
    header: Option<Header>,
    #[serde(rename = "ID")]
    id: i64,
    #[serde(rename = "TTL")]
    ttl: i64,
    #[serde(rename = "Error")]
    error: &'a str,
}

impl<'a> From<&'a pb::LeaseGrantResponse> for Granted<'a> {
    fn from(answer: &'a pb::LeaseGrantResponse) -> Self {
        let header = header(answer.header.as_ref());
        Self { header, id: answer.id, ttl: answer.ttl, error: &answer.error }
    }
}

/// What is left of a lease.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct TimeToLive<'a> {
    #[serde(flatten)]
    header: Option<Header>,
    id: i64,
    ttl: i64,
    granted_ttl: i64,
    /// As Go's client has it: no list where there is no key.
    keys: Option<Vec<Base64<'a>>>,
}

impl<'a> From<&'a pb::LeaseTimeToLiveResponse> for TimeToLive<'a> {
    fn from(answer: &'a pb::LeaseTimeToLiveResponse) -> Self {
        let keys = answer.keys.iter().map(|key| Base64(key)).collect();
        Self {
            header: header(answer.header.as_ref()),
            id: answer.id,
            ttl: answer.ttl,
            granted_ttl: answer.granted_ttl,
            keys: if answer.keys.is_empty() { None } else { Some(keys) },
        }
    }
}

/// All leases.
#[derive(Serialize)]
pub(crate) struct Leases {
    #[serde(flatten)]
    header: Option<Header>,
    leases: Vec<Status>,
}

#[derive(Serialize)]
struct Status {
    id: i64,
}

impl From<&pb::LeaseLeasesResponse> for Leases {
    fn from(answer: &pb::LeaseLeasesResponse) -> Self {
        let leases = answer.leases.iter().map(|lease| Status { id: lease.id }).collect();
        Self { header: header(answer.header.as_ref()), leases }
    }
}

/// The answer to a renewal.
#[derive(Serialize)]
pub(crate) struct Renewed {
    #[serde(flatten)]
    header: Option<Header>,
    #[serde(rename = "ID")]
    id: i64,
    #[serde(rename = "TTL")]
    ttl: i64,
}

impl From<&pb::LeaseKeepAliveResponse> for Renewed {
    fn from(answer: &pb::LeaseKeepAliveResponse) -> Self {
        Self { header: header(answer.header.as_ref()), id: answer.id, ttl: answer.ttl }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(answer: &impl Serialize, expected: &str) {
        assert_eq!(serde_json::to_string(answer).unwrap(), expected);
    }

    #[test]
    fn leases_look_as_etcdctl_prints_them() {
        let header = Some(pb::ResponseHeader { cluster_id: 3, member_id: 4, revision: 8, raft_term: 2 });
        let head = "\"cluster_id\":3,\"member_id\":4,\"revision\":8,\"raft_term\":2";
        let granted = pb::LeaseGrantResponse { header, id: 7, ttl: 60, error: String::new() };
        check(&Granted::from(&granted), &format!("{{{head},\"ID\":7,\"TTL\":60,\"Error\":\"\"}}"));
        let keys = vec!["f".into()];
        let mut left = pb::LeaseTimeToLiveResponse { header, id: 7, ttl: 59, granted_ttl: 60, keys };
        let text = format!("{{{head},\"id\":7,\"ttl\":59,\"granted-ttl\":60,\"keys\":[\"Zg==\"]}}");
        check(&TimeToLive::from(&left), &text);
        left.keys.clear();
        check(&TimeToLive::from(&left), &text.replace("[\"Zg==\"]", "null"));
        let leases = vec![pb::LeaseStatus { id: 7 }];
        let all = pb::LeaseLeasesResponse { header, leases };
        check(&Leases::from(&all), &format!("{{{head},\"leases\":[{{\"id\":7}}]}}"));
        let renewed = pb::LeaseKeepAliveResponse { header, id: 7, ttl: 60 };
        check(&Renewed::from(&renewed), &format!("{{{head},\"ID\":7,\"TTL\":60}}"));
    }
}
