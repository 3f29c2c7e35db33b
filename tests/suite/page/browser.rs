//! A real Chromium, driven over the WebDriver protocol through chromedriver, both started and stopped here.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fantoccini::{Client, ClientBuilder, wd::WebDriverCompatibleCommand};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::needs;

/// Switches that keep the browser quiet and within this machine.
const SWITCHES: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,900",
];

/// A browser with one tab.
pub struct Browser {
    pub client: Client,
    driver: Child,
    profile: tempfile::TempDir,
}

/// A command that the standard lacks and chromedriver has.
#[derive(Debug)]
struct Vendor {
    path: &'static str,
    body: Value,
}

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &url::Url, session: Option<&str>) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.body.to_string()))
    }
}

impl Browser {
    /// Starts one. `None`, said aloud, where this machine has no chromedriver; in CI that is a failure.
    pub async fn start() -> Option<Self> {
        let (driver, port) = match start_driver() {
            Ok(started) => started,
            Err(error) => {
                needs::met(false, &format!("chromedriver does not start ({error}): install chromium-driver"));
                crate::support::left_out(&format!(
                    "the page in a browser: chromedriver does not start ({error}); install chromium and chromium-driver"
                ));
                return None;
            }
        };
        let profile = tempfile::tempdir().expect("a directory for the profile");
        let mut switches: Vec<String> = SWITCHES.map(str::to_owned).to_vec();
        switches.push(format!("--user-data-dir={}", profile.path().display()));
        let capabilities = json!({
            "browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": {"args": switches},
        });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities.as_object().expect("an object").clone());
        let client = builder.connect(&format!("http://127.0.0.1:{port}/")).await.expect("a browser session");
        Some(Self { client, driver, profile })
    }

    /// Runs a script and returns what it returns.
    pub async fn js(&self, script: &str) -> Value {
        self.client.execute(script, vec![]).await.expect(script)
    }

    /// A command of the browser's own protocol (CDP).
    pub async fn cdp(&self, cmd: &str, params: Value) {
        let command = Vendor { path: "goog/cdp/execute", body: json!({"cmd": cmd, "params": params}) };
        self.client.issue_cmd(command).await.expect(cmd);
    }

    /// Looks every 50 ms until `condition`, a script's expression, holds; returns how long that took.
    pub async fn until(&self, condition: &str, limit: Duration) -> Duration {
        let started = Instant::now();
        let script = format!("return Boolean({condition})");
        while self.js(&script).await != json!(true) {
            assert!(started.elapsed() < limit, "not within {limit:?}: {condition}\n{}", self.describe().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        started.elapsed()
    }

    async fn describe(&self) -> String {
        let html = self.js("return document.documentElement.dataset.conn + ' ' + document.body.innerText.slice(0, 3000)").await;
        format!("{html}\n{:?}", self.complaints().await)
    }

    /// What the browser wrote to its console as warnings and errors since the last call: policy violations are among them.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self.client.issue_cmd(Vendor { path: "se/log", body: json!({"type": "browser"}) }).await.expect("the console");
        let entries = log.as_array().cloned().unwrap_or_default();
        entries.iter().filter(|entry| entry["level"] != "INFO").map(|entry| entry["message"].to_string()).collect()
    }

    /// Ends browser and driver.
    pub async fn stop(mut self) {
        let _ = self.client.clone().close().await;
        end(&mut self.driver);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        end(&mut self.driver);
        end_browser(self.profile.path());
    }
}

/// Ends what still runs over this profile, which is nobody else's: a driver that is stopped while it has a session, as when a test panics,
/// leaves its browser to itself.
fn end_browser(profile: &Path) {
    let profile = profile.display().to_string();
    let started = Instant::now();
    loop {
        let left = processes_naming(&profile);
        for pid in &left {
            // SAFETY: plain system call; the process carries the name of our own directory.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        if left.is_empty() || started.elapsed() > Duration::from_secs(5) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes, this one left out, whose command line names `word`. What has ended and was not waited for has no command line.
fn processes_naming(word: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let names =
        |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(word));
    let own = std::process::id().cast_signed();
    pids.filter(|pid| *pid != own && names(pid)).collect()
}

/// Asks the driver to stop, which closes its browser; kills it where it does not.
fn end(driver: &mut Child) {
    if matches!(driver.try_wait(), Ok(Some(_))) {
        return;
    }
    super::signal(driver, libc::SIGTERM);
    let started = Instant::now();
    while matches!(driver.try_wait(), Ok(None)) {
        if started.elapsed() > Duration::from_secs(5) {
            let _ = driver.kill();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts the driver. Where many start at once it has been seen to end before it named its port: then it is started again.
fn start_driver() -> std::io::Result<(Child, u16)> {
    for _ in 0..5 {
        let mut driver = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        match port_of(&mut driver) {
            Some(port) => return Ok((driver, port)),
            None => drop(driver.wait()?),
        }
    }
    panic!("the driver has ended five times before it named its port");
}

/// Reads the port that the driver chose from what it prints, and keeps reading so that it never blocks on the pipe. `None` where it has ended.
fn port_of(driver: &mut Child) -> Option<u16> {
    let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let port = lines.by_ref().find_map(|line| {
        line.split("successfully on port ").nth(1).map(|rest| rest.trim_end_matches('.').parse().expect("a port"))
    });
    std::thread::spawn(move || lines.for_each(drop));
    port
}

#[tokio::test]
async fn a_browser_that_nobody_closed_is_ended_with_its_test() {
    let _turn = super::TURN.lock().await;
    let Some(browser) = Browser::start().await else { return };
    let profile = browser.profile.path().display().to_string();
    assert!(processes_naming(&profile).len() > 1, "driver and browser, or their parts");
    drop(browser);
    assert_eq!(processes_naming(&profile), Vec::<i32>::new());
}
