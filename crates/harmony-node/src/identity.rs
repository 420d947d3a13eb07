//! Ids of clusters and members, derived as etcd derives them: tools that know one know the other.

use harmony_types::{ClusterId, NodeId};
use sha1::{Digest, Sha1};

/// The id of a member that is named before its cluster starts: SHA-1 over its sorted peer URLs and the cluster token, the
/// first 8 bytes of it, big endian.
#[must_use]
pub fn member_id(peer_urls: &[String], token: &str) -> NodeId {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url.as_bytes());
    }
    hash.update(token.as_bytes());
    // One set of names in 2^64 hashes to "nobody"; it gets the next number.
    NodeId::new(first_8_bytes(hash)).unwrap_or_else(|| NodeId::new(1).expect("1 is not 0"))
}

/// The id of a member that is added to a running cluster: SHA-1 over its sorted peer URLs and the time in seconds since
/// 1970, decimal; the first 8 bytes of it, big endian.
#[must_use]
pub fn added_member_id(peer_urls: &[String], unix_seconds: u64) -> NodeId {
    member_id(peer_urls, &unix_seconds.to_string())
}

/// The id of a cluster: SHA-1 over its first members' sorted ids, 8 bytes each, big endian; the first 8 bytes of it.
#[must_use]
pub fn cluster_id(members: &[NodeId]) -> ClusterId {
    let mut members = members.to_vec();
    members.sort_unstable();
    let mut hash = Sha1::new();
    for member in members {
        hash.update(member.get().to_be_bytes());
    }
    ClusterId(first_8_bytes(hash))
}

fn first_8_bytes(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_derives_the_same_ids() {
        let member = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster");
        assert_eq!(member.to_string(), "8e9e05c52164694d");
        assert_eq!(cluster_id(&[member]).to_string(), "cdf818194e3a8c32");
    }

    /// By hand: `printf http://10.0.0.1:23801700000000 | sha1sum`.
    #[test]
    fn an_added_member_gets_the_id_of_its_time() {
        let urls = ["http://10.0.0.1:2380".to_owned()];
        assert_eq!(added_member_id(&urls, 1_700_000_000).to_string(), "20887cfd5ab65081");
        assert_ne!(added_member_id(&urls, 1_700_000_000), added_member_id(&urls, 1_700_000_001));
    }

    #[test]
    fn the_order_of_urls_and_members_does_not_count() {
        let (a, b) = ("http://a:1".to_owned(), "http://b:1".to_owned());
        assert_eq!(member_id(&[a.clone(), b.clone()], "t"), member_id(&[b.clone(), a.clone()], "t"));
        assert_ne!(member_id(std::slice::from_ref(&a), "t"), member_id(&[a], "u"));
        let (one, two) = (NodeId::new(1).unwrap(), NodeId::new(2).unwrap());
        assert_eq!(cluster_id(&[one, two]), cluster_id(&[two, one]));
    }
}
