//! A Raft node: ordered Ready handling, pipelined log writes, linearizable reads and peer transport for any state machine.
