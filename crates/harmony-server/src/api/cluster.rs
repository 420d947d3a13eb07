//! The Cluster service (ETCD API, section 10), as far as membership is static: the list.

use harmony_types::{Member, Role, Storage};

use super::Api;
use super::status::ApiError;
use crate::proto::etcdserverpb as pb;

impl Api {
    pub(crate) async fn member_list(
        &self,
        request: pb::MemberListRequest,
    ) -> Result<pb::MemberListResponse, ApiError> {
        if request.linearizable {
            self.linearize().await?;
        }
        let members = self.storage.membership().members.into_values().map(member).collect();
        Ok(pb::MemberListResponse { header: Some(self.header(0)), members })
    }
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
