//! MVCC key-value storage: write-ahead log and on-disk B-tree with transactions, snapshots and recovery.
