//! Development tasks.

mod proto;

use std::error::Error;

use clap::Parser;

#[derive(Parser)]
enum Task {
    /// Write the server's wire protocol code from its `.proto` files.
    Proto {
        /// Only check that the code checked in is current.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<(), Box<dyn Error>> {
    match Task::parse() {
        Task::Proto { check } => proto::run(check),
    }
}
