//! Cuts a plan down to what a failure needs.

use super::plan::Plan;

/// Removes steps of `plan` as long as `fails` says that the failure stays: halves first, then ever smaller pieces, then single
/// steps, until none can go. `runs_max` bounds how often it is asked.
#[must_use]
pub fn shrink(plan: &Plan, runs_max: usize, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut plan = plan.clone();
    let mut runs = 0;
    let mut piece = plan.steps.len().div_ceil(2);
    while piece != 0 {
        let mut removed = false;
        let mut at = 0;
        while at < plan.steps.len() {
            if runs == runs_max {
                return plan;
            }
            runs += 1;
            let shorter = plan.without(at..plan.steps.len().min(at + piece));
            if fails(&shorter) {
                plan = shorter;
                removed = true;
            } else {
                at += piece;
            }
        }
        // What was needed by a step that is gone may go now, too.
        if !(removed && piece == 1) {
            piece /= 2;
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use harmony_types::NodeId;
    use harmony_types::fake::seed::Seed;

    use super::*;
    use crate::simulation::plan::{Fault, Intensity, Step};

    #[test]
    fn only_what_the_failure_needs_is_left() {
        let id = NodeId::new(2).unwrap();
        let mut plan = Plan::generate(Seed(7), Intensity::Wild, 3, 60_000);
        let needed = [
            Step { at_ms: 60_000, fault: Fault::Join(id) },
            Step { at_ms: 60_001, fault: Fault::Remove(id) },
        ];
        plan.steps.insert(0, Step { at_ms: 0, fault: Fault::Compact });
        plan.steps.extend(needed);
        let mut runs = 0;
        let small = shrink(&plan, 10_000, |plan| {
            runs += 1;
            needed.iter().all(|step| plan.steps.contains(step))
        });
        assert_eq!(small.steps, needed);
        assert!(runs < 4 * plan.steps.len(), "{runs} runs for {} steps", plan.steps.len());
        assert_eq!(shrink(&plan, 0, |_| true), plan, "no run, no change");
    }
}
