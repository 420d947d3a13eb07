//! Clusters under test: in process and as real processes, with kills, partitions and checkers.
