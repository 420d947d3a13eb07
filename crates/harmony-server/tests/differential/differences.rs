//! Where this server answers differently from etcd 3.5, and why. What is not in the table is a bug; what is there and does not
//! occur any more is reported.

use crate::compare::Finding;

/// A part of an answer in which the servers differ.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) rpc: &'static str,
    pub(crate) part: &'static str,
    /// What etcd says; `*`: whatever it is.
    pub(crate) etcd: &'static str,
    /// What this server says; `*`: whatever it is.
    pub(crate) harmony: &'static str,
    pub(crate) why: &'static str,
}

impl Difference {
    pub(crate) fn covers(&self, finding: &Finding) -> bool {
        let is = |pattern: &str, text: &str| pattern == "*" || pattern == text;
        self.rpc == finding.rpc
            && self.part == finding.part
            && is(self.etcd, &finding.etcd)
            && is(self.harmony, &finding.harmony)
    }
}

const fn row(
    rpc: &'static str,
    part: &'static str,
    etcd: &'static str,
    harmony: &'static str,
    why: &'static str,
) -> Difference {
    Difference { rpc, part, etcd, harmony, why }
}

const NEW: &str = "etcd has the field since 3.6, which this server follows.";

pub(crate) const DIFFERENCES: &[Difference] = &[
    row("Maintenance/Status", "storageVersion", "nothing", "~", NEW),
    row("Maintenance/Status", "dbSizeQuota", "nothing", "~", NEW),
    row("Maintenance/Status", "downgradeInfo", "nothing", "{}", NEW),
    row("Maintenance/HashKV", "hash_revision", "nothing", "*", NEW),
    row("Maintenance/Snapshot", "version", "nothing", "~", NEW),
];
