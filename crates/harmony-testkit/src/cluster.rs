//! The two kinds of cluster: in one process, and as real processes.

pub mod in_process;
pub mod processes;
