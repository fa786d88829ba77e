//! `mrgc completions`: a script for a shell; with a router, the names of its regions are completed, too.

use std::io;

use anyhow::Result;
use clap::{Arg, Command, builder::PossibleValuesParser};
use clap_complete::Shell;

use crate::{Verdict, ask, regions, router::RouterArgs};

const EXAMPLES: &str = "\
Examples:
  mrgc completions bash > /etc/bash_completion.d/mrgc
  mrgc completions zsh --regions > ~/.zfunc/_mrgc

With --regions a router is asked for them; write the script again when there is a new one.";

/// How the arguments are called that name a region of the fleet.
const REGION: &str = "REGION";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    shell: Shell,
    /// Complete the names of the fleet's regions
    #[arg(long)]
    regions: bool,
    #[command(flatten)]
    router: RouterArgs,
}

pub(crate) fn run(args: &Args, command: Command) -> Result<Verdict> {
    if !args.regions {
        write(args.shell, command);
        return Ok(Verdict::Good);
    }
    ask(async {
        let names = regions::names(&args.router.open()?).await?;
        // For as long as it takes to write the script.
        let names: Vec<&str> = names.iter().map(|name| &*name.to_string().leak()).collect();
        write(args.shell, with_regions(command, &names));
        Ok(Verdict::Good)
    })
}

fn write(shell: Shell, mut command: Command) {
    clap_complete::generate(shell, &mut command, "mrgc", &mut io::stdout());
}

/// The same command, whose regions can only be these.
fn with_regions(command: Command, names: &[&'static str]) -> Command {
    let is_region = |arg: &Arg| {
        let named = arg.get_value_names().unwrap_or_default();
        named.iter().any(|name| name == REGION) && arg.get_id() != "aws_region"
    };
    command
        .mut_args(|arg| match is_region(&arg) {
            true => arg.value_parser(PossibleValuesParser::new(names.to_vec())),
            false => arg,
        })
        .mut_subcommands(|subcommand| with_regions(subcommand, names))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Cli;

    #[test]
    fn regions_are_completed_where_one_is_named() {
        let names = ["us-east-1", "eu-west-1"];
        let script = |mut command: Command| {
            let mut script = Vec::new();
            clap_complete::generate(Shell::Bash, &mut command, "mrgc", &mut script);
            String::from_utf8(script).unwrap_or_default()
        };
        let without = script(Cli::command());
        assert!(!without.contains("eu-west-1"));
        let with = script(with_regions(Cli::command(), &names));
        // As positional arguments and as an option's.
        assert!(with.matches("us-east-1 eu-west-1").count() >= 5, "{with}");
    }
}
