//! The `harmony` program.

fn main() {}
