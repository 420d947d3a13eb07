//! Waiting for a condition in real time, with a limit: the only place here that sleeps.

use std::time::Duration;

use harmony_node::SystemClock;
use harmony_types::Clock;
use harmony_types::testing::TestError;

/// How long a cluster may take to do what it must do in the end. Generous: machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Calls `attempt` until it succeeds.
///
/// # Errors
/// Its last error, with `what`, when `limit` has passed.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T, TestError>,
) -> Result<T, TestError> {
    let clock = SystemClock::new();
    let start = clock.now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if limit < clock.now().saturating_sub(start) => {
                return Err(format!("{what}: not within {limit:?}: {error}").into());
            }
            Err(_) => clock.sleep(STEP),
        }
    }
}

/// Waits without a condition: to let a load run for a while.
pub fn pause(duration: Duration) {
    SystemClock::new().sleep(duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told() {
        let error = until::<()>("the moon", Duration::ZERO, || Err("not full".into())).unwrap_err();
        assert!(error.to_string().starts_with("the moon: not within 0ns: not full"), "{error}");
        let mut tries = 0;
        let value = until("three", PATIENCE, || {
            tries += 1;
            if tries == 3 { Ok(tries) } else { Err("early".into()) }
        });
        assert_eq!(value.unwrap(), 3);
    }
}
