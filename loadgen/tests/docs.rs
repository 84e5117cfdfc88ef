//! `docs/LOADGEN.md` names every option that there is, and none that there is not.

use std::collections::BTreeSet;

use clap::CommandFactory;
use loadgen::args::Cli;

#[test]
fn the_page_and_the_command_have_the_same_options() {
    let page = include_str!("../../docs/LOADGEN.md");
    let there = page.split("## Not there").next().unwrap_or(page);
    // A rule of a table has dashes, too, but no letter behind them.
    let named: BTreeSet<String> = there
        .split("--")
        .skip(1)
        .map(|rest| rest.split(|c: char| c != '-' && !c.is_ascii_lowercase()))
        .filter_map(|mut words| words.next())
        .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
        .map(str::to_owned)
        .collect();
    let command = Cli::command();
    let all = std::iter::once(&command).chain(command.get_subcommands());
    let mut options: BTreeSet<String> = all
        .flat_map(|command| command.get_arguments())
        .filter_map(|option| option.get_long())
        .map(str::to_owned)
        .collect();
    // clap's own, and the one of `scripts/bench.sh` that the page speaks of.
    options.extend(["help", "criterion"].map(str::to_owned));
    assert_eq!(named, options);
}
