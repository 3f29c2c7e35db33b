//! `belayd migrate`: the schema of the store.

use std::process::ExitCode;

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
    #[command(after_help = "Example:\n  belayd migrate revert")]
    Revert,
}

/// Works on the store that the configuration names. The daemon need not run; for `revert` it must not.
pub fn execute(args: &MigrateArgs, global: &GlobalArgs) -> ExitCode {
    let loaded = match global.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let config = loaded.config;
    let _lock = match (args.action == MigrateAction::Revert).then(|| DataDirectory::open(&config.server.data_dir)).transpose() {
        Ok(lock) => lock,
        Err(reason) => return fail(&reason),
    };
    let store = match Store::open(&config.store) {
        Ok(store) => store,
        Err(error) => return fail(&error.to_string()),
    };
    match run(&store, args.action) {
        Ok(text) => super::print(&text),
        Err(error) => fail(&format!("{}: {error}", store.redacted_url())),
    }
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
        MigrateAction::Revert => match store.revert_last_migration()? {
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
        };
        let store = Store::open(&config).expect("a store");
        let told = |action| run(&store, action).expect("runs");
        assert!(told(MigrateAction::Status).contains("pending"));
        assert!(told(MigrateAction::Run).contains("applied"));
        assert_eq!(told(MigrateAction::Run), "nothing is pending\n");
        assert!(told(MigrateAction::Revert).contains("reverted"));
        assert!(told(MigrateAction::Status).lines().last().expect("a line").ends_with("pending"));
    }
}
