//! Users and roles as JSON.

use serde::Serialize;

use super::{Base64, Header, header, zero};
use crate::proto::etcdserverpb as pb;

/// An answer that says no more than that it was done.
#[derive(Serialize)]
pub(crate) struct Done {
    header: Option<Header>,
}

impl Done {
    pub(crate) fn new(answer: Option<&pb::ResponseHeader>) -> Self {
        Self { header: header(answer) }
    }
}

/// Whether permissions are asked for.
#[derive(Serialize)]
pub(crate) struct Status {
    header: Option<Header>,
    #[serde(skip_serializing_if = "zero")]
    enabled: bool,
    #[serde(rename = "authRevision", skip_serializing_if = "zero")]
    auth_revision: u64,
}

impl From<&pb::AuthStatusResponse> for Status {
    fn from(answer: &pb::AuthStatusResponse) -> Self {
        Self {
            header: header(answer.header.as_ref()),
            enabled: answer.enabled,
            auth_revision: answer.auth_revision,
        }
    }
}

/// Names of users, or of roles.
#[derive(Serialize)]
pub(crate) struct Names<'a> {
    header: Option<Header>,
    #[serde(skip_serializing_if = "zero")]
    users: &'a [String],
    #[serde(skip_serializing_if = "zero")]
    roles: &'a [String],
}

impl<'a> Names<'a> {
    pub(crate) fn users(answer: &'a pb::AuthUserListResponse) -> Self {
        Self { header: header(answer.header.as_ref()), users: &answer.users, roles: &[] }
    }

    pub(crate) fn roles(answer: Option<&pb::ResponseHeader>, roles: &'a [String]) -> Self {
        Self { header: header(answer), users: &[], roles }
    }
}

/// What a role permits.
#[derive(Serialize)]
pub(crate) struct Role<'a> {
    header: Option<Header>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    perm: Vec<Permission<'a>>,
}

#[derive(Serialize)]
struct Permission<'a> {
    #[serde(rename = "permType", skip_serializing_if = "zero")]
    kind: i32,
    key: Base64<'a>,
    #[serde(skip_serializing_if = "Base64::is_empty")]
    range_end: Base64<'a>,
}

impl<'a> From<&'a pb::AuthRoleGetResponse> for Role<'a> {
    fn from(answer: &'a pb::AuthRoleGetResponse) -> Self {
        let permission = |perm: &'a crate::proto::authpb::Permission| Permission {
            kind: perm.perm_type,
            key: Base64(&perm.key),
            range_end: Base64(&perm.range_end),
        };
        Self { header: header(answer.header.as_ref()), perm: answer.perm.iter().map(permission).collect() }
    }
}
