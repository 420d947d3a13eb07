//! What is done for each row.

pub mod apply;
pub mod history;
pub mod reads;
pub mod restart;
pub mod space;
pub mod tails;
