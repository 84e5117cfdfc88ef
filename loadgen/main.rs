//! `loadgen`: drives an XMPP server with many clients, verifies every delivery and shows the cost.

use std::process::ExitCode;

use clap::error::ErrorKind;

use loadgen::args::{Cli, Command, LoadArgs};
use loadgen::heed::{self, Refusal};
use loadgen::result::exit;
use loadgen::run::Ran;
use loadgen::workers::worker;
use loadgen::{compare, files, html, run, search, table};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match heed::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(Refusal::Ignored(reason) | Refusal::Scenario(reason)) => {
            eprintln!("loadgen: {reason}");
            return ExitCode::from(exit::FAILED);
        }
        Err(Refusal::Usage(error)) => {
            // Where even this cannot be printed there is nobody to tell.
            let _ = error.print();
            let asked = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            return ExitCode::from(if asked { exit::OK } else { exit::FAILED });
        }
    };
    if let Err(error) = ring::small_pages() {
        eprintln!("loadgen: transparent huge pages stay on, a large run may be late: {error}");
    }
    match run(&cli) {
        Ok(code) => ExitCode::from(code),
        Err(reason) => {
            eprintln!("loadgen: {reason}");
            ExitCode::from(exit::FAILED)
        }
    }
}

fn run(cli: &Cli) -> Result<u8, String> {
    let features = || ring::probe().map_err(|refused| refused.to_string());
    let (ran, load) = match &cli.command {
        Some(Command::Report { files: paths, out }) => {
            let results = paths
                .iter()
                .map(|path| files::read(path))
                .collect::<Result<Vec<_>, _>>()?;
            files::write(out, html::render_all(&results).as_bytes())?;
            return Ok(exit::OK);
        }
        Some(Command::Compare {
            before,
            after,
            noise,
            only,
        }) => {
            let (before, after) = (files::read(before)?, files::read(after)?);
            let comparison = compare::compare(&before, &after, *noise, only)?;
            print!("{}", comparison.render());
            return Ok(comparison.exit());
        }
        Some(Command::Worker(args)) => {
            worker::run(args, features()?)?;
            return Ok(exit::OK);
        }
        Some(Command::Floor(load)) => (run::floor(load, features()?)?, &**load),
        None if cli.run.find_max => (search::find_max(&cli.run, features()?)?, &cli.run.load),
        None => (run::server(&cli.run, features()?)?, &cli.run.load),
    };
    print!("{}", table::render(&ran.result));
    write_files(&ran, load)?;
    Ok(ran.result.exit)
}

fn write_files(ran: &Ran, load: &LoadArgs) -> Result<(), String> {
    if let Some(path) = &load.json {
        files::json(path, &ran.result)?;
    }
    if let Some(path) = &load.csv {
        files::write(path, files::csv(&ran.result).as_bytes())?;
    }
    if let Some(path) = &load.report {
        files::write(path, html::render(&ran.result).as_bytes())?;
    }
    if let Some(path) = &load.history {
        files::append(path, &ran.result)?;
    }
    if let Some(directory) = &load.hgrm {
        files::histograms(directory, ran)?;
    }
    Ok(())
}
