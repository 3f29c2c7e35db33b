//! The command line. In: arguments and environment. Out: text on stdout, faults on stderr, and an exit code that scripts and
//! systemd can rely on. Nothing is kept here, so a crash loses nothing.
//!
//! A command is one file with an argument struct and `execute`, and one line in [`Command`].

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::config::{LoadOptions, Loaded};

pub mod backup;
pub mod check;
pub mod config;
mod control_client;
pub mod demo;
pub mod failures;
pub mod journal;
pub mod migrate;
pub mod run;
pub mod send;
pub mod simulate;
pub mod sinks;
pub mod status;
pub mod tail;
pub mod token;

/// Exit codes, the same for every command. Wrong usage is 2, which clap gives.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// It was tried and failed.
    pub const FAILED: u8 = 1;
    /// The configuration has faults (`EX_CONFIG`): systemd does not restart on it.
    pub const CONFIG: u8 = 78;
}

/// `belayd …`
#[derive(Debug, Parser)]
#[command(name = "belayd", version, about, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Example:\n  belayd demo\n\nExit codes: 0 done, 1 failed, 2 usage, 78 configuration.")]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct GlobalArgs {
    /// Configuration file; without it ./belayd.toml, then /etc/belayd/belayd.toml, else defaults
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key for this run, for example buffer.batch_rows=500; goes before file and environment. Others on this host can
    /// see it: no secrets here
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl GlobalArgs {
    /// Where the configuration comes from: the arguments, the process's environment and working directory.
    pub fn options(&self) -> LoadOptions {
        let mut options = LoadOptions::from_process();
        options.file.clone_from(&self.config);
        options.set.clone_from(&self.set);
        options
    }

    /// Loads the configuration; prints every fault to stderr and gives exit code 78 where there are any.
    ///
    /// # Errors
    /// The exit code to end with.
    pub fn load(&self) -> Result<Loaded, ExitCode> {
        load(&self.options())
    }

    /// The data directory, for commands that need nothing else; faults elsewhere in the configuration are only mentioned.
    ///
    /// # Errors
    /// The exit code to end with, after the faults are printed, where the directory cannot be told.
    pub fn data_dir(&self) -> Result<PathBuf, ExitCode> {
        match crate::config::data_dir(&self.options()) {
            Ok((dir, faults)) => {
                if faults.is_some() {
                    complain("note: the configuration has faults, see belayd check; server.data_dir could be told all the same");
                }
                Ok(dir)
            }
            Err(faults) => {
                complain(&faults.to_string());
                complain("server.data_dir cannot be told from this; name it with --set server.data_dir=DIR");
                Err(ExitCode::from(exit::CONFIG))
            }
        }
    }
}

/// [`crate::config::load`] for a command: faults go to stderr, one a line.
///
/// # Errors
/// Exit code 78, after the faults are printed.
pub fn load(options: &LoadOptions) -> Result<Loaded, ExitCode> {
    crate::config::load(options).map_err(|faults| {
        complain(&faults.to_string());
        ExitCode::from(exit::CONFIG)
    })
}

/// The commands, in the order in which a newcomer needs them.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "made once, at start")]
pub enum Command {
    /// The daemon with simulated engines and a receiver of alerts, from nothing
    Demo(demo::DemoArgs),
    /// Run the daemon
    Run(run::RunArgs),
    /// Say every fault of the configuration at once
    Check(check::CheckArgs),
    /// Print a commented example of the configuration
    Config(config::ConfigArgs),
    /// Say how the running daemon is
    Status(status::StatusArgs),
    /// Show the running daemon's log
    Tail(tail::TailArgs),
    /// Send a message to people
    Send(send::SendArgs),
    /// Readings and deliveries that wait for a person
    Failures(failures::FailuresArgs),
    /// The ways out: how they are, and a test
    Sinks(sinks::SinksArgs),
    /// Tokens for people and senders
    Token(token::TokenArgs),
    /// The schema of the store
    Migrate(migrate::MigrateArgs),
    /// What the journal holds, and whether it is whole
    Journal(journal::JournalArgs),
    /// Put data directory and database into one file
    Backup(backup::BackupArgs),
    /// Put back what a backup holds
    Restore(backup::RestoreArgs),
    /// Simulate engines, or replay a file: a source to poll, or a pusher
    Simulate(simulate::SimulateArgs),
}

/// Parses the process's arguments and runs the command. Wrong usage ends the process with code 2, `--help` and `--version` with 0.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match &cli.command {
        Command::Run(args) => run::execute(args, &cli.global),
        Command::Check(args) => check::execute(args, &cli.global),
        Command::Config(args) => config::execute(args),
        Command::Status(args) => status::execute(args, &cli.global),
        Command::Tail(args) => tail::execute(args, &cli.global),
        Command::Send(args) => send::execute(args, &cli.global),
        Command::Failures(args) => failures::execute(args, &cli.global),
        Command::Sinks(args) => sinks::execute(args, &cli.global),
        Command::Token(args) => token::execute(args, &cli.global),
        Command::Migrate(args) => migrate::execute(args, &cli.global),
        Command::Journal(args) => journal::execute(args, &cli.global),
        Command::Backup(args) => backup::execute(args, &cli.global),
        Command::Restore(args) => backup::execute_restore(args, &cli.global),
        Command::Demo(args) => demo::execute(args),
        Command::Simulate(args) => simulate::execute(args),
    }
}

/// Writes to stdout. A reader that went away (`belayd … | head`) is not a failure.
pub fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to stdout: {error}"));
            ExitCode::from(exit::FAILED)
        }
        _ => ExitCode::from(exit::DONE),
    }
}

/// Writes one complaint to stderr; where even that is impossible there is nobody left to tell.
pub fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use clap::{Args, CommandFactory};

    use super::*;

    /// Every command with those beneath it.
    fn walk(command: &clap::Command, found: &mut Vec<clap::Command>) {
        found.push(command.clone());
        command.get_subcommands().for_each(|sub| walk(sub, found));
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        let mut commands = Vec::new();
        walk(&Cli::command(), &mut commands);
        // Those that are not wired yet are held to it as well.
        for command in [
            run::RunArgs::augment_args(clap::Command::new("run")),
            demo::DemoArgs::augment_args(clap::Command::new("demo")),
            simulate::SimulateArgs::augment_args(clap::Command::new("simulate")),
            status::StatusArgs::augment_args(clap::Command::new("status")),
            tail::TailArgs::augment_args(clap::Command::new("tail")),
            failures::FailuresArgs::augment_args(clap::Command::new("failures")),
            token::TokenArgs::augment_args(clap::Command::new("token")),
            migrate::MigrateArgs::augment_args(clap::Command::new("migrate")),
        ] {
            command.clone().debug_assert();
            walk(&command, &mut commands);
        }
        for command in commands {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "belayd {} lacks an example", command.get_name());
        }
    }
}
