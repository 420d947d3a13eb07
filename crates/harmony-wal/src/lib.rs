//! A segmented, CRC-checked write-ahead log with group commit that tells a torn tail from corruption.
