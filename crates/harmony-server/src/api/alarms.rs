//! Alarms (ETCD API, section 11): listed, raised and cleared by clients, and the alarm that a full quota raises.

use std::time::Duration;

use harmony_types::alarm::{Alarm, AlarmChange};
use harmony_types::auth::access::Needs;
use harmony_types::quota::{self, QuotaStep};
use harmony_types::{AlarmType, Alarms, Author, CommandKind, Outcome, OutcomeKind};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::status::ApiError;
use super::{Api, mismatch};
use crate::auth::caller::Caller;
use crate::proto::etcdserverpb as pb;
use pb::alarm_request::AlarmAction;

/// Time between two looks at whether that is so, and between two tries to raise or clear the alarm.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

impl Api {
    /// Lists the alarms, raises one, or clears one. A list is linearizable, as etcd's is.
    pub(crate) async fn alarm(
        &self,
        caller: &Caller,
        request: pb::AlarmRequest,
    ) -> Result<pb::AlarmResponse, ApiError> {
        let Ok(action) = AlarmAction::try_from(request.action) else {
            return Err(ApiError::UNKNOWN_ALARM);
        };
        let alarms = match action {
            AlarmAction::Get => {
                // A member that serves nobody tells why all the same.
                if !self.is_corrupt() {
                    self.linearize().await?;
                }
                // Without a state there is nothing else to tell, and nobody knows who may hear it.
                if !self.storage.is_lost() {
                    self.authorize(caller, || Needs::User(Vec::new())).await?;
                }
                let mut alarms = self.all_alarms();
                for member in self.node.metrics().corrupt_members.get() {
                    alarms.raise(Alarm::new(AlarmType::Corrupt, member.get()));
                }
                let is_asked = |alarm: &&Alarm| request.alarm == 0 || request.alarm == alarm.alarm;
                alarms.iter().filter(is_asked).map(to_wire).collect()
            }
            AlarmAction::Activate | AlarmAction::Deactivate => {
                let alarm = Alarm { alarm: request.alarm, member: request.member_id };
                let change = match action {
                    AlarmAction::Activate => AlarmChange::activate(alarm),
                    _ => AlarmChange::deactivate(alarm),
                };
                change.validate().map_err(|_| ApiError::UNKNOWN_ALARM)?;
                alarm_of(self.propose_by(caller, CommandKind::Alarm(change)).await?)?
                    .iter()
                    .map(to_wire)
                    .collect()
            }
        };
        Ok(pb::AlarmResponse { header: Some(self.header_now()), alarms })
    }

    /// The alarms that are raised: the member's id, and the type's name.
    pub(crate) fn alarms_by_member(&self) -> Vec<(String, &'static str)> {
        let alarms = self.all_alarms();
        let known = alarms.iter().filter_map(|alarm| {
            let types = [AlarmType::NoSpace, AlarmType::Corrupt];
            let kind = types.into_iter().find(|kind| Alarm::new(*kind, alarm.member) == *alarm)?;
            Some((format!("{:x}", alarm.member), name(kind)))
        });
        known.collect()
    }

    /// The alarms that commands raised, and this member's own, which clear by themselves: while its disk is nearly full, and
    /// while its state is being replaced. A command would raise the latter for all, and stop the members that are well, too.
    pub(super) fn all_alarms(&self) -> Alarms {
        let mut alarms = self.storage.alarms();
        if self.node.metrics().disk_space.get() != 0 {
            alarms.raise(Alarm::new(AlarmType::NoSpace, self.member.get()));
        }
        if self.is_corrupt() {
            alarms.raise(Alarm::new(AlarmType::Corrupt, self.member.get()));
        }
        alarms
    }

    /// This member's state differs from the others' and is being replaced.
    pub(super) fn is_corrupt(&self) -> bool {
        self.node.metrics().corrupt.get() != 0
    }

    /// Refuses a local read while this member's state is not the others'.
    ///
    /// # Errors
    /// [`ApiError::CORRUPT`].
    pub(super) fn check_state(&self) -> Result<(), ApiError> {
        if self.is_corrupt() { Err(ApiError::CORRUPT) } else { Ok(()) }
    }

    /// Refuses a command for which the quota has no room.
    pub(super) fn check_quota(&self, command: &CommandKind) -> Result<(), ApiError> {
        let Some(quota) = self.limits.quota else { return Ok(()) };
        let cost = quota::cost(command);
        if cost == 0 || quota.admits(self.storage.live_bytes(), cost) {
            return Ok(());
        }
        self.refused_for_quota.notify_one();
        Err(ApiError::NO_SPACE)
    }

    /// Raises or clears an alarm by this member's own doing: nobody is logged in.
    async fn change_own_alarm(&self, change: AlarmChange) -> Result<(), ApiError> {
        let own = Author { by_member: true, ..Author::default() };
        self.propose(Some(own), CommandKind::Alarm(change)).await.map(drop)
    }

    /// Raises this member's alarm when a write was refused for its quota, and clears it when deletes and compaction have
    /// brought it well below: a task of the network thread, for ever.
    ///
    /// etcd leaves the clearing to an operator, who then wonders why a store with room refuses writes.
    pub(crate) async fn watch_quota(self: std::sync::Arc<Self>) {
        let Some(quota) = self.limits.quota else { return };
        let alarm = Alarm::new(AlarmType::NoSpace, self.member.get());
        loop {
            let look = Instant::now() + LOOK_PAUSE;
            let is_refused = timeout_at(look, self.refused_for_quota.notified()).await.is_ok();
            let is_raised = self.storage.alarms().iter().any(|raised| *raised == alarm);
            let live = self.storage.live_bytes();
            let change = match quota.step(live, is_raised) {
                QuotaStep::Clear => AlarmChange::deactivate(alarm),
                QuotaStep::Raise => AlarmChange::activate(alarm),
                QuotaStep::Keep if is_refused && !is_raised => AlarmChange::activate(alarm),
                QuotaStep::Keep => continue,
            };
            let quota = quota.bytes;
            match self.change_own_alarm(change).await {
                Ok(()) if is_raised => tracing::info!(live, quota, "below the quota again: alarm cleared"),
                Ok(()) => tracing::warn!(
                    live,
                    quota,
                    "the quota is used up: writes are refused until deletes and compaction make room"
                ),
                // The next refused write, or the next look, tries again.
                Err(error) => tracing::debug!(%error, "alarm not changed"),
            }
            sleep_until(look).await;
        }
    }
}

/// The alarm that was raised or cleared; none when there was none to clear.
fn alarm_of(outcome: Outcome) -> Result<Option<Alarm>, ApiError> {
    match outcome {
        Outcome { kind: Some(OutcomeKind::Alarm(outcome)), .. } => Ok(outcome.alarm),
        other => Err(mismatch(&other)),
    }
}

fn to_wire(alarm: &Alarm) -> pb::AlarmMember {
    pb::AlarmMember { member_id: alarm.member, alarm: alarm.alarm }
}

/// An alarm as etcd writes it among the errors of a status.
pub(super) fn text(alarm: &Alarm) -> String {
    let name = AlarmType::try_from(alarm.alarm).map_or("NONE", name);
    format!("memberID:{} alarm:{name} ", alarm.member)
}

/// An alarm's name, as etcd's protocol has it.
pub(crate) fn name(alarm: AlarmType) -> &'static str {
    match alarm {
        AlarmType::None => "NONE",
        AlarmType::NoSpace => "NOSPACE",
        AlarmType::Corrupt => "CORRUPT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_told_in_etcds_words() {
        let alarm = Alarm::new(AlarmType::NoSpace, 8_630_161_756_594_109_333);
        assert_eq!(text(&alarm), "memberID:8630161756594109333 alarm:NOSPACE ");
    }
}
