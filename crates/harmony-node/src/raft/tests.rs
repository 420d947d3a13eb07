//! What raft would panic on, and does not get to see.
