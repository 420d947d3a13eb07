//! Fakes for tests of every layer.
