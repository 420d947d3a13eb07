//! The Cluster service (ETCD API, section 10): the list of members, and its changes.

use std::collections::BTreeMap;
use std::time::Duration;

use harmony_node::{SystemClock, added_member_id};
use harmony_types::{
    Clock as _, ConfChange, ConfChangeType, Member, Membership, MembershipError, NodeError, NodeId, Role,
    Storage,
};
use tokio::time::{sleep, timeout};

use super::Api;
use super::status::ApiError;
use crate::config::Url;
use crate::proto::etcdserverpb as pb;

/// Rest before a change is tried again that met another one under way: those end by themselves.
const PENDING_PAUSE: Duration = Duration::from_millis(20);

impl Api {
    pub(crate) async fn member_list(
        &self,
        request: pb::MemberListRequest,
    ) -> Result<pb::MemberListResponse, ApiError> {
        if request.linearizable {
            self.linearize().await?;
        }
        let members = members(self.storage.membership().members);
        Ok(pb::MemberListResponse { header: Some(self.header(0)), members })
    }

    /// Adds a member. One that is to vote begins as a learner all the same, and is promoted once it has caught up: one that
    /// never starts costs no quorum.
    pub(crate) async fn member_add(
        &self,
        request: pb::MemberAddRequest,
    ) -> Result<pb::MemberAddResponse, ApiError> {
        let peer_urls = peer_urls(&request.peer_ur_ls)?;
        if !self.hears_peers {
            return Err(ApiError::NO_PEERS_HEARD);
        }
        let membership = self.storage.membership();
        let is_used = |id: &NodeId| membership.members.contains_key(id) || membership.removed.contains(id);
        // The same URLs again within a second need an id of their own.
        let now = SystemClock::new().unix_ms() / 1000;
        let id = (now..).map(|seconds| added_member_id(&peer_urls, seconds)).find(|id| !is_used(id));
        let id = id.ok_or(MembershipError::Exists)?;
        let change_type = if request.is_learner { ConfChangeType::AddLearner } else { ConfChangeType::Join };
        let added = Member { peer_urls, ..nameless(id, Role::Learner) };
        let after = self.change(change_type, added).await?;
        let added = after.members.get(&id).cloned().map(member);
        let members = members(after.members);
        Ok(pb::MemberAddResponse { header: Some(self.header(0)), member: added, members })
    }

    pub(crate) async fn member_remove(
        &self,
        request: pb::MemberRemoveRequest,
    ) -> Result<pb::MemberRemoveResponse, ApiError> {
        let id = NodeId::new(request.id).ok_or(MembershipError::NotFound)?;
        let after = self.change(ConfChangeType::Remove, nameless(id, Role::Voter)).await?;
        Ok(pb::MemberRemoveResponse { header: Some(self.header(0)), members: members(after.members) })
    }

    /// Other peer URLs for a member; what it is stays.
    pub(crate) async fn member_update(
        &self,
        request: pb::MemberUpdateRequest,
    ) -> Result<pb::MemberUpdateResponse, ApiError> {
        let peer_urls = peer_urls(&request.peer_ur_ls)?;
        self.linearize().await?;
        let known = NodeId::new(request.id).and_then(|id| self.storage.membership().members.remove(&id));
        let known = known.ok_or(MembershipError::NotFound)?;
        let after = self.change(ConfChangeType::Update, Member { peer_urls, ..known }).await?;
        Ok(pb::MemberUpdateResponse { header: Some(self.header(0)), members: members(after.members) })
    }

    pub(crate) async fn member_promote(
        &self,
        request: pb::MemberPromoteRequest,
    ) -> Result<pb::MemberPromoteResponse, ApiError> {
        let id = NodeId::new(request.id).ok_or(MembershipError::NotFound)?;
        let after = self.change(ConfChangeType::Promote, nameless(id, Role::Voter)).await?;
        Ok(pb::MemberPromoteResponse { header: Some(self.header(0)), members: members(after.members) })
    }

    /// Makes a change, behind those that are under way.
    async fn change(&self, change_type: ConfChangeType, member: Member) -> Result<Membership, ApiError> {
        let made = async {
            loop {
                let (waiter, receiver) = self.changes.waiter();
                let changes = vec![ConfChange { change_type, member: member.clone() }];
                self.node.change_members(changes, waiter);
                match receiver.answer(self.limits.timeout).await {
                    Err(NodeError::Membership(MembershipError::Pending)) => sleep(PENDING_PAUSE).await,
                    answer => return answer,
                }
            }
        };
        Ok(timeout(self.limits.timeout, made).await.unwrap_or(Err(NodeError::Timeout))?)
    }
}

/// A member of which only the id counts.
fn nameless(id: NodeId, role: Role) -> Member {
    Member { id, name: String::new(), peer_urls: Vec::new(), client_urls: Vec::new(), role }
}

/// Checks a member's peer URLs.
fn peer_urls(given: &[String]) -> Result<Vec<String>, ApiError> {
    let mut urls = Vec::new();
    for url in given {
        urls.push(Url::parse(url).map_err(|_| ApiError::BAD_MEMBER_URLS)?.to_string());
    }
    urls.sort_unstable();
    urls.dedup();
    if urls.is_empty() { Err(ApiError::BAD_MEMBER_URLS) } else { Ok(urls) }
}

fn members(members: BTreeMap<NodeId, Member>) -> Vec<pb::Member> {
    members.into_values().map(member).collect()
}

fn member(member: Member) -> pb::Member {
    pb::Member {
        id: member.id.get(),
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.role == Role::Learner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_members_are_checked_and_sorted() {
        let strings = |urls: &[&str]| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            peer_urls(&strings(&["http://b:1", "http://a:1/"])).unwrap(),
            ["http://a:1", "http://b:1"]
        );
        for bad in [&[][..], &["a:1"], &["http://a"], &["http://a:1", "http://a:1/path"], &["ftp://a:1"]] {
            assert_eq!(peer_urls(&strings(bad)).unwrap_err(), ApiError::BAD_MEMBER_URLS, "{bad:?}");
        }
    }
}
