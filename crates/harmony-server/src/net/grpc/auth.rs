//! The Auth service as tonic wants it.

use tonic::codegen::async_trait;
use tonic::{Request, Response, Status};

use super::{Grpc, open, pack};
use crate::proto::etcdserverpb as pb;

#[async_trait]
impl pb::auth_server::Auth for Grpc {
    async fn auth_enable(
        &self,
        request: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let (caller, _) = open(request);
        let header = self.0.auth_enable(&caller).await;
        pack(header.map(|header| pb::AuthEnableResponse { header: Some(header) }))
    }

    async fn auth_disable(
        &self,
        request: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let (caller, _) = open(request);
        let header = self.0.auth_disable(&caller).await;
        pack(header.map(|header| pb::AuthDisableResponse { header: Some(header) }))
    }

    async fn auth_status(
        &self,
        _: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        pack(self.0.auth_status().await)
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        pack(self.0.authenticate(request.into_inner()).await)
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let (caller, request) = open(request);
        let header = self.0.user_add(&caller, request).await;
        pack(header.map(|header| pb::AuthUserAddResponse { header: Some(header) }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.user_get(&caller, request).await)
    }

    async fn user_list(
        &self,
        request: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let (caller, _) = open(request);
        pack(self.0.user_list(&caller).await)
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let (caller, request) = open(request);
        let header = self.0.user_delete(&caller, request).await;
        pack(header.map(|header| pb::AuthUserDeleteResponse { header: Some(header) }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let (caller, request) = open(request);
        let header = self.0.user_change_password(&caller, request).await;
        pack(header.map(|header| pb::AuthUserChangePasswordResponse { header: Some(header) }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let (caller, request) = open(request);
        let header = self.0.user_grant_role(&caller, request).await;
        pack(header.map(|header| pb::AuthUserGrantRoleResponse { header: Some(header) }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let (caller, request) = open(request);
        let header = self.0.user_revoke_role(&caller, request).await;
        pack(header.map(|header| pb::AuthUserRevokeRoleResponse { header: Some(header) }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let (caller, request) = open(request);
        let header = self.0.role_add(&caller, request).await;
        pack(header.map(|header| pb::AuthRoleAddResponse { header: Some(header) }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        let (caller, request) = open(request);
        pack(self.0.role_get(&caller, request).await)
    }

    async fn role_list(
        &self,
        request: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let (caller, _) = open(request);
        pack(self.0.role_list(&caller).await)
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let (caller, request) = open(request);
        let header = self.0.role_delete(&caller, request).await;
        pack(header.map(|header| pb::AuthRoleDeleteResponse { header: Some(header) }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let (caller, request) = open(request);
        let header = self.0.role_grant_permission(&caller, request).await;
        pack(header.map(|header| pb::AuthRoleGrantPermissionResponse { header: Some(header) }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let (caller, request) = open(request);
        let header = self.0.role_revoke_permission(&caller, request).await;
        pack(header.map(|header| pb::AuthRoleRevokePermissionResponse { header: Some(header) }))
    }
}
