//! `belayd migrate`: the schema of the store.

use std::{
    io::{self, BufRead, IsTerminal},
    process::ExitCode,
};

use clap::Subcommand;

use super::{GlobalArgs, complain, exit};
use crate::{
    daemon::DataDirectory,
    store::{Store, StoreResult, migrate::MigrationStatus},
};

/// Arguments of `belayd migrate`.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_help = "Example:\n  belayd migrate status")]
pub struct MigrateArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: MigrateAction,
}

/// What to do with the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum MigrateAction {
    /// List what has run and what has not
    #[command(after_help = "Example:\n  belayd migrate status --config /etc/belayd/belayd.toml")]
    Status,
    /// Run what has not (the daemon does so at start)
    #[command(after_help = "Example:\n  belayd migrate run")]
    Run,
    /// Take back the newest one, with its data; stop the daemon first
    #[command(after_help = "Example:\n  belayd migrate revert --yes")]
    Revert {
        /// Do not ask; needed where nobody can be asked
        #[arg(long)]
        yes: bool,
    },
}

/// Works on the store that the configuration names. The daemon need not run; for `revert` it must not.
pub fn execute(args: &MigrateArgs, global: &GlobalArgs) -> ExitCode {
    let loaded = match global.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let config = loaded.config;
    let reverts = matches!(args.action, MigrateAction::Revert { .. });
    let _lock = match reverts.then(|| DataDirectory::open(&config.server.data_dir)).transpose() {
        Ok(lock) => lock,
        Err(reason) => return fail(&reason.to_string()),
    };
    let store = match Store::open(&config.store) {
        Ok(store) => store,
        Err(error) => return fail(&error.to_string()),
    };
    if args.action == (MigrateAction::Revert { yes: false })
        && let Err(reason) = confirm(&store, &mut io::stdin().lock(), io::stdin().is_terminal())
    {
        return fail(&reason);
    }
    match run(&store, args.action) {
        Ok(text) => super::print(&text),
        Err(error) => fail(&format!("{}: {error}", store.redacted_url())),
    }
}

/// Asks on the terminal whether the newest migration's data may go.
fn confirm(store: &Store, answers: &mut impl BufRead, is_terminal: bool) -> Result<(), String> {
    let newest = store.migration_status().map_err(|error| format!("{}: {error}", store.redacted_url()))?;
    let Some(newest) = newest.into_iter().rfind(|migration| migration.applied) else { return Ok(()) };
    let what = format!("{} takes back {}: what its tables hold is dropped", store.redacted_url(), newest.name);
    if !is_terminal {
        return Err(format!("{what}; say --yes, since nobody can be asked here"));
    }
    complain(&format!("{what}. Type yes to go on:"));
    let mut answer = String::new();
    answers.read_line(&mut answer).map_err(|error| error.to_string())?;
    if answer.trim() == "yes" { Ok(()) } else { Err("nothing was changed".to_owned()) }
}

fn fail(reason: &str) -> ExitCode {
    complain(reason);
    ExitCode::from(exit::FAILED)
}

fn run(store: &Store, action: MigrateAction) -> StoreResult<String> {
    Ok(match action {
        MigrateAction::Status => {
            let line = |migration: MigrationStatus| {
                let state = match (migration.applied, migration.known) {
                    (true, true) => "applied",
                    (true, false) => "applied by a newer belayd",
                    (false, _) => "pending",
                };
                format!("{:<44} {state}\n", migration.name)
            };
            store.migration_status()?.into_iter().map(line).collect()
        }
        MigrateAction::Run => match store.migrate()?.as_slice() {
            [] => "nothing is pending\n".into(),
            names => names.iter().map(|name| format!("{name} applied\n")).collect(),
        },
        MigrateAction::Revert { .. } => match store.revert_last_migration()? {
            Some(name) => format!("{name} reverted\n"),
            None => "nothing is applied\n".into(),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::StoreConfig;

    #[test]
    fn migrations_are_listed_run_and_taken_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = StoreConfig {
            url: format!("sqlite://{}", dir.path().join("test.db").display()),
            pool_size: 1,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(5),
            breaker: crate::domain::breaker::BreakerSettings::STORE,
        };
        let store = Store::open(&config).expect("a store");
        let told = |action| run(&store, action).expect("runs");
        assert!(told(MigrateAction::Status).contains("pending"));
        assert!(told(MigrateAction::Run).contains("applied"));
        assert_eq!(told(MigrateAction::Run), "nothing is pending\n");
        let answer = |text: &str, is_terminal| confirm(&store, &mut text.as_bytes(), is_terminal);
        assert!(answer("yes\n", false).expect_err("nobody to ask").contains("--yes"));
        assert_eq!(answer("y\n", true), Err("nothing was changed".to_owned()));
        assert_eq!(answer("yes\n", true), Ok(()));
        assert!(told(MigrateAction::Revert { yes: true }).contains("reverted"));
        assert!(told(MigrateAction::Status).lines().last().expect("a line").ends_with("pending"));
    }
}
