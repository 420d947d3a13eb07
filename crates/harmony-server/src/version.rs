//! Versions that clients ask for.

/// This program's.
pub(crate) const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// The release of etcd whose API and behaviour this server has: clients decide by it what they may use.
pub(crate) const API: &str = "3.6.14";

/// The same without the patch.
pub(crate) const API_MINOR: &str = "3.6";

/// The cluster's version of that API.
pub(crate) const CLUSTER: &str = "3.6.0";

/// The version of what is stored, in etcd's count.
pub(crate) const STORAGE: &str = "3.6.0";

/// Major, minor and patch of a version such as `3.5` or `v3.5.0`.
pub(crate) fn parse(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
    let mut next = || parts.next().map(|part| part.parse().ok());
    let (major, minor, patch) = (next()??, next()??, next().unwrap_or(Some(0))?);
    parts.next().is_none().then_some([major, minor, patch])
}

/// Whether a version is of the minor release before that of [`CLUSTER`].
pub(crate) fn one_below(target: [u32; 3]) -> bool {
    parse(CLUSTER).is_some_and(|[major, minor, _]| [major, minor] == [target[0], target[1] + 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse("3.5"), Some([3, 5, 0]));
        assert_eq!(parse("v3.5.1"), Some([3, 5, 1]));
        for wrong in ["", "3", "3.x", "3.5.", "3.5.0.0", "-3.5"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert!(one_below([3, 5, 9]) && !one_below([3, 6, 0]) && !one_below([3, 4, 0]));
    }
}
