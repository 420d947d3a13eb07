//! The header of answers (ETCD API, section 2).

use super::Api;
use crate::proto::etcdserverpb::ResponseHeader;

impl Api {
    /// A header with the store's revision that the answer stands for; 0 in answers about members.
    pub(crate) fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster.0,
            member_id: self.member.get(),
            revision,
            raft_term: self.node.term().0,
        }
    }

    /// A header with the newest revision here.
    pub(crate) fn header_now(&self) -> ResponseHeader {
        self.header(self.storage.revision().as_i64())
    }
}
