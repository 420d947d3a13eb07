//! The RPCs by name, out of the descriptors that the JSON gateway uses.

use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions};
use serde_json::Value;

use crate::paths::PATHS;

static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(&include_bytes!("../../src/proto/descriptors.bin")[..]).unwrap());

pub(crate) fn pool() -> &'static DescriptorPool {
    &POOL
}

/// The RPC of a name such as `KV/Range`.
pub(crate) fn method(rpc: &str) -> MethodDescriptor {
    let (service, name) = rpc.split_once('/').unwrap();
    let service = POOL.services().find(|it| it.name() == service).unwrap_or_else(|| panic!("{rpc}"));
    service.methods().find(|method| method.name() == name).unwrap_or_else(|| panic!("{rpc}"))
}

/// Its path in the JSON gateway.
pub(crate) fn path(method: &MethodDescriptor) -> Option<String> {
    let service = method.parent_service();
    let is_it = |row: &&(&str, &str, &str)| row.0 == service.full_name() && row.1 == method.name();
    PATHS.iter().find(is_it).map(|(_, _, path)| format!("/v3/{path}"))
}

pub(crate) fn message(of: MessageDescriptor, json: &Value) -> DynamicMessage {
    DynamicMessage::deserialize(of, json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// With the names of the proto files and without what is zero.
pub(crate) fn json(message: &DynamicMessage) -> Value {
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}
