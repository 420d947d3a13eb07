//! Alarms: raised and cleared by commands; which are raised stands in rows and, decoded, in the settings.

use bytes::Bytes;
use harmony_types::alarm::{AlarmAction, AlarmChange, AlarmOutcome};
use harmony_types::{Alarms, Refusal};

use crate::batch::Batch;
use crate::tree::rows;
use crate::unified::UnifiedStorage;

/// Raises or clears an alarm.
///
/// # Errors
/// [`Refusal::Invalid`].
pub(crate) fn change(batch: &mut Batch, request: &AlarmChange) -> Result<AlarmOutcome, Refusal> {
    let (action, alarm) = request.validate()?;
    let mut alarms = Alarms::clone(&batch.settings().alarms);
    if action == AlarmAction::Activate {
        if alarms.raise(alarm) {
            batch.set_row(rows::alarm(&alarm), Some(Bytes::new()));
            batch.set_alarms(alarms);
        }
        return Ok(AlarmOutcome { alarm: Some(alarm) });
    }
    if !alarms.clear(&alarm) {
        return Ok(AlarmOutcome { alarm: None });
    }
    batch.set_row(rows::alarm(&alarm), None);
    batch.set_alarms(alarms);
    Ok(AlarmOutcome { alarm: Some(alarm) })
}

impl UnifiedStorage {
    /// The alarms that are raised.
    pub fn alarms(&self) -> Alarms {
        Alarms::clone(&self.published().settings.alarms)
    }
}
