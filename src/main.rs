//! The process: arguments, configuration, and the subcommands of the `vorpal` binary.

mod cli;

use std::process::ExitCode;

use clap::Parser;

/// The server's buffers come and go by size on every core; mimalloc keeps that local to a thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(cli::Arguments::parse()) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("vorpal: {failure}");
            ExitCode::FAILURE
        }
    }
}
