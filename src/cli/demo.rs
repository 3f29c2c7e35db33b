//! `belayd demo`: the daemon with a simulator as source and a catcher as receiver, from nothing.
//!
//! In: at most a directory and an address. Out: on stdout the address to open, and a daemon until SIGINT or SIGTERM. Without
//! `--dir` everything is kept in a temporary directory that goes with it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use chrono::Utc;

use super::{complain, exit, print};
use crate::{
    config::{self, Config},
    daemon::{self, Daemon, Options},
    domain::role::Role,
    logging,
    monitor::InboxItem,
    sim::{
        catcher,
        model::FleetOptions,
        origin::{Notice, Origin},
        serve,
    },
};

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);
const FREE_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const ENGINES: u32 = 6;

/// Arguments of `belayd demo`.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(
    after_help = "Example:\n  belayd demo\n\nThe first line on stdout is the address to open in a browser; the log goes to stderr. Ctrl-C ends it."
)]
pub struct DemoArgs {
    /// Keep everything here; without it in a temporary directory that is removed at the end
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Listen here, loopback only; without it at 127.0.0.1:7070, or at a free port where that is taken
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
}

/// Runs the demo until it is ended.
pub fn execute(args: &DemoArgs) -> ExitCode {
    match run(args) {
        Ok(code) => code,
        Err(Failure { code, text }) => {
            complain(&format!("belayd demo: {text}"));
            ExitCode::from(code)
        }
    }
}

struct Failure {
    code: u8,
    text: String,
}

/// An error of something that the demo tried.
fn failed<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> Failure {
    move |error| Failure { code: exit::FAILED, text: format!("{what}: {error}") }
}

fn run(args: &DemoArgs) -> Result<ExitCode, Failure> {
    super::run::keep_memory_small();
    // Held until the daemon has stopped; dropping it removes the directory.
    let mut temporary = None;
    let dir = match &args.dir {
        Some(dir) => {
            fs::create_dir_all(dir).map_err(failed(&dir.display().to_string()))?;
            fs::canonicalize(dir).map_err(failed(&dir.display().to_string()))?
        }
        None => temporary
            .insert(tempfile::Builder::new().prefix("belayd-demo-").tempdir().map_err(failed("temporary directory"))?)
            .path()
            .to_owned(),
    };
    let notice: Notice = Arc::new(|text| log::warn!(target: "belayd::demo", "{text}"));
    let fleet = FleetOptions { engines: ENGINES, rate_hz: 1.0, seed: rand::random(), start_us: Utc::now().timestamp_micros() };
    let simulator = serve::start(Origin::Model(fleet), FREE_PORT, notice).map_err(failed("the simulator"))?;
    let (catcher, inbox) = catcher::start().map_err(failed("the catcher"))?;
    let listen = args.listen.unwrap_or_else(free_or_default);
    let config = demo_config(&dir, listen, simulator.addr(), &Receivers { http: catcher.http(), mail: catcher.mail() })
        .map_err(|faults| Failure { code: exit::CONFIG, text: faults.to_string() })?;
    let logging = logging::init(&config.log).map_err(failed("the log"))?;
    let look = Arc::new(move || inbox.items().into_iter().map(InboxItem::from).collect());
    let options = Options { logging, reload: None, demo: Some(look) };
    let code = daemon::block_on(async {
        let daemon = Daemon::start(config, options).await.map_err(failed("the daemon"))?;
        let token = daemon.tokens.create(&token_name(), Role::Admin, None).await.map_err(failed("the token"))?;
        print(&welcome(&daemon.url, &token.text, &dir, args.dir.is_some()));
        Ok(daemon.wait().await)
    });
    simulator.stop();
    drop(catcher);
    if let Some(temporary) = temporary {
        temporary.close().map_err(failed("the temporary directory"))?;
    }
    code
}

/// A directory that is kept has the tokens of earlier runs; each run has its own.
fn token_name() -> String {
    format!("demo-{}", Utc::now().timestamp_micros())
}

/// The default address where it is free. Somebody may take it in the next moment; then the start says so.
fn free_or_default() -> SocketAddr {
    if TcpListener::bind(LISTEN).is_ok() { LISTEN } else { FREE_PORT }
}

/// Where the catcher takes what.
struct Receivers {
    http: SocketAddr,
    mail: SocketAddr,
}

/// The demo's configuration goes the same way as a file, so that it is checked like one.
fn demo_config(dir: &Path, listen: SocketAddr, simulator: SocketAddr, catcher: &Receivers) -> Result<Config, config::Faults> {
    let quoted = |text: String| toml::Value::String(text).to_string();
    let store = quoted(format!("sqlite://{}", dir.join("belayd.db").display()));
    let data = quoted(dir.join("belayd-data").display().to_string());
    let host = quoted(listen.ip().to_string());
    let source = serve::config_snippet(simulator);
    let Receivers { http, mail } = catcher;
    config::parse(&format!(
        "[server]\nlisten = \"{listen}\"\ndata_dir = {data}\nhosts = [\"localhost\", \"127.0.0.1\", {host}]\n\
         [store]\nurl = {store}\n\
         [log]\nlevel = \"warn,belayd=info\"\n\
         {source}\
         [smtp]\nhost = \"{}\"\nport = {}\ntls = \"none\"\nfrom = \"belayd demo <belayd@demo.localhost>\"\nto = \"you@demo.localhost\"\n\
         [slack]\nurl = \"http://{http}/slack\"\n\
         [discord]\nurl = \"http://{http}/discord\"\n\
         [[bots]]\nname = \"bot\"\nurl = \"http://{http}/bot\"\nroom = \"demo\"\n\
         [[webhooks]]\nname = \"catcher\"\nurl = \"http://{http}/webhook\"\n",
        mail.ip(),
        mail.port(),
    ))
}

fn welcome(url: &str, token: &str, dir: &Path, kept: bool) -> String {
    let fate = if kept { "and stays there" } else { "and goes when this ends" };
    format!(
        "belayd demo: {url}/?token={token}\n\
         Open it: {ENGINES} engines report every second; within 10 s one overheats, and its alert arrives in the page's inbox.\n\
         Then stop an actor and see it come back:\n  \
         curl -X POST -H 'Authorization: Bearer {token}' {url}/admin/actors/IngestActor/restart\n\
         All of it is in {} {fate}; Ctrl-C ends the demo.\n",
        dir.display()
    )
}

impl From<catcher::Caught> for InboxItem {
    fn from(caught: catcher::Caught) -> Self {
        let body = match caught.repeats {
            0 => caught.body,
            repeats => format!("{} (arrived {} times)", caught.body, u64::from(repeats) + 1),
        };
        Self { at: caught.at, via: caught.via.to_owned(), title: caught.title, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVERS: Receivers = Receivers { http: FREE_PORT, mail: LISTEN };

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    #[test]
    fn the_demos_configuration_is_without_fault_whatever_its_directory() {
        for dir in ["/var/lib/demo", "/a b/\"quoted\"\\é"] {
            let config = demo_config(Path::new(dir), address(0), address(1), &RECEIVERS).expect("a configuration");
            assert_eq!(config.server.data_dir, Path::new(dir).join("belayd-data"));
            assert_eq!(config.store.url, format!("sqlite://{dir}/belayd.db"));
            assert_eq!((config.sources.len(), config.webhooks.len()), (1, 1));
            assert!(config.sources[0].url.ends_with("/api/engines?after={after}"));
            assert!(config.rules.iter().any(|rule| rule.metric == "temperature" && rule.threshold == 350.0));
            assert_eq!(config.routes[0].sinks, ["log", "smtp", "slack", "discord", "catcher", "bot"], "each way is shown");
        }
    }

    #[test]
    fn the_demo_does_not_listen_beyond_loopback() {
        let beyond = SocketAddr::from(([0, 0, 0, 0], 7070));
        assert!(demo_config(Path::new("/d"), beyond, address(1), &RECEIVERS).is_err());
    }

    #[test]
    fn the_first_line_is_the_address_with_the_token() {
        let text = welcome("http://127.0.0.1:7070", "bly_x", Path::new("/d"), true);
        assert_eq!(text.lines().next(), Some("belayd demo: http://127.0.0.1:7070/?token=bly_x"));
    }
}
