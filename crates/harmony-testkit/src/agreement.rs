//! The check that ends every scenario: all members hold the same.

use harmony_types::testing::TestError;

use crate::client::{Client, NodeStatus};
use crate::wait::{PATIENCE, until};

/// Waits until all members have applied the same entries, then compares the hashes of their states.
///
/// # Errors
/// The states differ, or the members do not come to one applied index.
pub fn check<'a>(members: impl Iterator<Item = &'a dyn Client>) -> Result<(), TestError> {
    let members: Vec<&dyn Client> = members.collect();
    let statuses = until("all members at one applied index", PATIENCE, || {
        let statuses: Vec<NodeStatus> =
            members.iter().map(|member| member.status()).collect::<Result<_, _>>()?;
        let same = statuses
            .windows(2)
            .all(|pair| (pair[0].applied, pair[0].revision) == (pair[1].applied, pair[1].revision));
        if same { Ok(statuses) } else { Err(format!("{statuses:?}").into()) }
    })?;
    let revision = statuses.first().ok_or("no member runs")?.revision;
    let hashes: Vec<_> =
        members.iter().map(|member| member.state_hash(revision)).collect::<Result<_, _>>()?;
    if hashes.windows(2).all(|pair| pair[0] == pair[1]) {
        Ok(())
    } else {
        Err(format!("the members' states differ at revision {revision}: {hashes:?}").into())
    }
}
