//! The rows of `state` that commands change: what is replicated and is no key. Their names have a slash; those of the
//! rows in [`super::meta`] have none.
//!
//! | row | value |
//! | --- | --- |
//! | `lease/`, id (u64, big endian) | a [`LeaseRow`] as protobuf |
//! | `leased/`, lease id (u64, big endian), key | nothing: the key is attached to the lease |
//! | `alarm/`, type (u32, big endian), member id (u64, big endian) | nothing: the alarm is raised |
//! | `auth/state` | an [`AuthRow`] as protobuf; missing before the first change |
//! | `user/`, name | a [`User`] as protobuf |
//! | `role/`, name | a [`Role`] as protobuf |

use bytes::{BufMut as _, Bytes, BytesMut};
use harmony_types::alarm::AlarmChange;
use harmony_types::auth::{Role, User};
use harmony_types::{Alarm, Alarms, AuthState, KeyRange, Lease, LeaseId, StorageError};
use prost::Message as _;

use super::record::{check_crc, corrupt};
use super::{KvView, NEXT, Table};

const LEASE: &[u8] = b"lease/";
pub(crate) const LEASED: &[u8] = b"leased/";
const ALARM: &[u8] = b"alarm/";
const AUTH: &[u8] = b"auth/state";
const USER: &[u8] = b"user/";
const ROLE: &[u8] = b"role/";
const ID_BYTES: usize = 8;

/// Whether a row is one of these.
pub(crate) fn is_replicated(name: &[u8]) -> bool {
    name.contains(&b'/')
}

/// Checks that a row, its checksum off, is one that this release knows.
///
/// # Errors
/// [`StorageError::CorruptRecord`].
pub(crate) fn check(name: &[u8], row: &[u8]) -> Result<(), StorageError> {
    if name.starts_with(LEASE) {
        decode_lease(name, row).map(drop)
    } else if name.starts_with(LEASED) {
        let named = leased_key(name)?;
        if row.is_empty() && !named.is_empty() { Ok(()) } else { Err(senseless(name)) }
    } else if name.starts_with(ALARM) {
        if row.is_empty() { decode_alarm(name).map(drop) } else { Err(senseless(name)) }
    } else if name == AUTH {
        decode_auth(row).map(drop)
    } else if name.starts_with(USER) {
        decode_user(name, row).map(drop)
    } else if name.starts_with(ROLE) {
        decode_role(name, row).map(drop)
    } else {
        Err(corrupt(Table::State, name, "no row of this release"))
    }
}

fn senseless(name: &[u8]) -> StorageError {
    corrupt(Table::State, name, "the row makes no sense")
}

/// A lease in its row.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct LeaseRow {
    #[prost(int64, tag = "1")]
    ttl_s: i64,
    #[prost(int64, tag = "2")]
    remaining_ttl_s: i64,
}

fn with_id(prefix: &[u8], id: LeaseId, key: &[u8]) -> Bytes {
    let mut name = BytesMut::with_capacity(prefix.len() + ID_BYTES + key.len());
    name.put_slice(prefix);
    name.put_u64(id.0.cast_unsigned());
    name.put_slice(key);
    name.freeze()
}

/// Name of a lease's row.
pub(crate) fn lease(id: LeaseId) -> Bytes {
    with_id(LEASE, id, &[])
}

/// All leases.
pub(crate) fn leases() -> KeyRange {
    KeyRange::prefix(LEASE)
}

/// Name of the row that attaches a key.
pub(crate) fn leased(id: LeaseId, key: &[u8]) -> Bytes {
    with_id(LEASED, id, key)
}

/// The rows of all keys attached to a lease, in the order of the keys.
pub(crate) fn leased_by(id: LeaseId) -> KeyRange {
    KeyRange::prefix(&with_id(LEASED, id, &[]))
}

/// The key that such a row attaches.
///
/// # Errors
/// [`StorageError::CorruptRecord`].
pub(crate) fn leased_key(name: &[u8]) -> Result<&[u8], StorageError> {
    name.get(LEASED.len() + ID_BYTES..).ok_or_else(|| senseless(name))
}

pub(crate) fn encode_lease(lease: &Lease) -> Bytes {
    LeaseRow { ttl_s: lease.ttl_s, remaining_ttl_s: lease.remaining_ttl_s }.encode_to_vec().into()
}

/// Reads a lease's row.
///
/// # Errors
/// [`StorageError::CorruptRecord`].
pub(crate) fn decode_lease(name: &[u8], row: &[u8]) -> Result<Lease, StorageError> {
    let id = name.strip_prefix(LEASE).and_then(|id| id.try_into().ok()).ok_or_else(|| senseless(name))?;
    let LeaseRow { ttl_s, remaining_ttl_s } = LeaseRow::decode(row).map_err(|_| senseless(name))?;
    let lease = Lease { id: LeaseId(u64::from_be_bytes(id).cast_signed()), ttl_s, remaining_ttl_s };
    let is_possible = lease.id != LeaseId(0) && 0 < ttl_s && (0..=ttl_s).contains(&remaining_ttl_s);
    if is_possible { Ok(lease) } else { Err(senseless(name)) }
}

/// Whether a row is that of an alarm.
pub(crate) fn is_alarm(name: &[u8]) -> bool {
    name.starts_with(ALARM)
}

/// Name of an alarm's row.
pub(crate) fn alarm(alarm: &Alarm) -> Bytes {
    let mut name = BytesMut::from(ALARM);
    name.put_i32(alarm.alarm);
    name.put_u64(alarm.member);
    name.freeze()
}

fn decode_alarm(name: &[u8]) -> Result<Alarm, StorageError> {
    let parts = name.strip_prefix(ALARM).and_then(|rest| rest.split_first_chunk::<4>());
    let (alarm, member) = parts.ok_or_else(|| senseless(name))?;
    let member = u64::from_be_bytes(member.try_into().map_err(|_| senseless(name))?);
    let alarm = Alarm { alarm: i32::from_be_bytes(*alarm), member };
    // A change that would not be valid cannot have written it.
    AlarmChange::activate(alarm).validate().map_err(|_| senseless(name))?;
    Ok(alarm)
}

/// All alarms that are raised.
///
/// # Errors
/// [`StorageError::CrcMismatch`], [`StorageError::CorruptRecord`].
pub(crate) fn read_alarms(tree: &dyn KvView) -> Result<Alarms, StorageError> {
    let mut alarms = Alarms::default();
    tree.scan(Table::State, KeyRange::prefix(ALARM).bounds(), &mut |name, row| {
        check_crc(Table::State, name, row)?;
        alarms.raise(decode_alarm(name)?);
        Ok(NEXT)
    })?;
    Ok(alarms)
}

/// Whether permissions are asked for, and how often they changed.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct AuthRow {
    #[prost(bool, tag = "1")]
    enabled: bool,
    #[prost(uint64, tag = "2")]
    revision: u64,
}

/// Name of the row for users and roles as a whole.
pub(crate) fn auth() -> Bytes {
    Bytes::from_static(AUTH)
}

/// Name of a user's row.
pub(crate) fn user(name: &str) -> Bytes {
    [USER, name.as_bytes()].concat().into()
}

/// Name of a role's row.
pub(crate) fn role(name: &str) -> Bytes {
    [ROLE, name.as_bytes()].concat().into()
}

/// The row of a user or a role.
pub(crate) fn encode(row: &impl prost::Message) -> Bytes {
    row.encode_to_vec().into()
}

pub(crate) fn encode_auth(auth: &AuthState) -> Bytes {
    encode(&AuthRow { enabled: auth.enabled, revision: auth.revision })
}

fn decode_auth(row: &[u8]) -> Result<AuthRow, StorageError> {
    let decoded = AuthRow::decode(row).map_err(|_| senseless(AUTH))?;
    // Without a change there is no row.
    if decoded.revision < 1 { Err(senseless(AUTH)) } else { Ok(decoded) }
}

fn decode_user(name: &[u8], row: &[u8]) -> Result<User, StorageError> {
    let decoded = User::decode(row).map_err(|_| senseless(name))?;
    let is_sane = !decoded.name.is_empty() && user(&decoded.name) == name && decoded.roles.is_sorted();
    if is_sane { Ok(decoded) } else { Err(senseless(name)) }
}

fn decode_role(name: &[u8], row: &[u8]) -> Result<Role, StorageError> {
    let decoded = Role::decode(row).map_err(|_| senseless(name))?;
    let is_sane = !decoded.name.is_empty()
        && role(&decoded.name) == name
        && decoded.permissions.iter().all(|permission| permission.validate().is_ok())
        && decoded.permissions.is_sorted_by_key(|permission| (&permission.key, &permission.range_end));
    if is_sane { Ok(decoded) } else { Err(senseless(name)) }
}

/// All users and roles.
///
/// # Errors
/// [`StorageError::CrcMismatch`], [`StorageError::CorruptRecord`].
pub(crate) fn read_auth(tree: &dyn KvView) -> Result<AuthState, StorageError> {
    let mut auth = AuthState::default();
    tree.get(Table::State, AUTH, &mut |row| {
        let AuthRow { enabled, revision } = decode_auth(check_crc(Table::State, AUTH, row)?)?;
        (auth.enabled, auth.revision) = (enabled, revision);
        Ok(())
    })?;
    tree.scan(Table::State, KeyRange::prefix(USER).bounds(), &mut |name, row| {
        let user = decode_user(name, check_crc(Table::State, name, row)?)?;
        auth.users.insert(user.name.clone(), user);
        Ok(NEXT)
    })?;
    tree.scan(Table::State, KeyRange::prefix(ROLE).bounds(), &mut |name, row| {
        let role = decode_role(name, check_crc(Table::State, name, row)?)?;
        auth.roles.insert(role.name.clone(), role);
        Ok(NEXT)
    })?;
    Ok(auth)
}

#[cfg(test)]
mod tests {
    use harmony_types::auth::Permission;

    use super::*;

    #[test]
    fn rows_keep_their_bytes() {
        let granted = Lease { id: LeaseId(258), ttl_s: 60, remaining_ttl_s: 7 };
        assert_eq!(lease(granted.id), &b"lease/\0\0\0\0\0\0\x01\x02"[..]);
        assert_eq!(encode_lease(&granted), &b"\x08\x3c\x10\x07"[..]);
        assert_eq!(decode_lease(&lease(granted.id), &encode_lease(&granted)).unwrap(), granted);
        assert_eq!(leased(LeaseId(-1), b"k"), &b"leased/\xff\xff\xff\xff\xff\xff\xff\xffk"[..]);
        assert_eq!(leased_key(&leased(LeaseId(-1), b"k")).unwrap(), b"k");
        let raised = Alarm { alarm: 1, member: 258 };
        assert_eq!(alarm(&raised), &b"alarm/\0\0\0\x01\0\0\0\0\0\0\x01\x02"[..]);
        assert_eq!(decode_alarm(&alarm(&raised)).unwrap(), raised);
        let state = AuthState { enabled: true, revision: 300, ..AuthState::default() };
        assert_eq!(
            (auth(), encode_auth(&state)),
            (b"auth/state"[..].into(), b"\x08\x01\x10\xac\x02"[..].into())
        );
        let one =
            User { name: "u".into(), password_hash: "h".into(), no_password: true, roles: vec!["r".into()] };
        assert_eq!(
            (user("u"), encode(&one)),
            (b"user/u"[..].into(), b"\x0a\x01u\x12\x01h\x18\x01\x22\x01r"[..].into())
        );
        assert_eq!(decode_user(&user("u"), &encode(&one)).unwrap(), one);
        let permission = Permission { permission: 2, key: "a".into(), range_end: "b".into() };
        let one = Role { name: "r".into(), permissions: vec![permission] };
        let bytes = b"\x0a\x01r\x12\x08\x08\x02\x12\x01a\x1a\x01b";
        assert_eq!((role("r"), encode(&one)), (b"role/r"[..].into(), bytes[..].into()));
        assert_eq!(decode_role(&role("r"), &encode(&one)).unwrap(), one);
    }

    #[test]
    fn a_row_that_makes_no_sense_is_refused() {
        check(&lease(LeaseId(1)), b"\x08\x3c").unwrap();
        check(&leased(LeaseId(1), b"k"), b"").unwrap();
        check(&alarm(&Alarm { alarm: 2, member: 7 }), b"").unwrap();
        for (name, row) in [
            (&b"progress"[..], &b""[..]),
            (b"other/1", b""),
            (b"lease/1", b"\x08\x3c"),
            (&lease(LeaseId(0)), b"\x08\x3c"),
            (&lease(LeaseId(1)), b""),
            (&lease(LeaseId(1)), b"\x08\x3c\x10\x3d"),
            (&lease(LeaseId(1)), b"\xff"),
            (b"leased/1", b""),
            (&leased(LeaseId(1), b""), b""),
            (&leased(LeaseId(1), b"k"), b"x"),
            (b"alarm/1", b""),
            (&alarm(&Alarm { alarm: 1, member: 7 }), b"x"),
            (&alarm(&Alarm { alarm: 3, member: 7 }), b""),
            (b"auth/state", b""),
            (b"auth/other", b"\x10\x02"),
            (b"user/", b""),
            (b"user/u", b"\x0a\x01v"),
            (b"user/u", b"\x0a\x01u\x22\x01s\x22\x01r"),
            (b"role/r", b"\x0a\x01s"),
            (b"role/r", b"\x0a\x01r\x12\x02\x08\x02"),
        ] {
            let error = check(name, row).unwrap_err();
            assert!(matches!(error, StorageError::CorruptRecord { .. }), "{error}");
        }
    }

    #[test]
    fn the_rows_of_one_lease_are_no_other_ones() {
        let range = leased_by(LeaseId(1));
        assert!(
            range.contains(&leased(LeaseId(1), b"\0")) && range.contains(&leased(LeaseId(1), b"\xff\xff"))
        );
        assert!(!range.contains(&leased(LeaseId(2), b"\0")) && !range.contains(&lease(LeaseId(1))));
        assert!(!leases().contains(&leased(LeaseId(1), b"k")));
    }
}
