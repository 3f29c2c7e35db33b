//! A real Chromium, driven over the WebDriver protocol through chromedriver, both started and stopped here.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fantoccini::{Client, ClientBuilder, wd::WebDriverCompatibleCommand};
use hyper_util::client::legacy::connect::HttpConnector;
use reqwest::Method;
use serde_json::{Value, json};

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
    _profile: tempfile::TempDir,
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
    /// Starts one. `None`, said aloud, where this machine has no chromedriver; with `CI=true` that is a failure.
    pub async fn start() -> Option<Self> {
        let started = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut driver = match started {
            Ok(driver) => driver,
            Err(error) => {
                assert!(env::var("CI").as_deref() != Ok("true"), "chromedriver does not start ({error}): install chromium-driver");
                crate::support::left_out(&format!(
                    "the page in a browser: chromedriver does not start ({error}); install chromium and chromium-driver"
                ));
                return None;
            }
        };
        let port = port_of(&mut driver);
        let profile = tempfile::tempdir().expect("a directory for the profile");
        let mut switches: Vec<String> = SWITCHES.map(str::to_owned).to_vec();
        switches.push(format!("--user-data-dir={}", profile.path().display()));
        let capabilities = json!({
            "browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": {"args": switches},
        });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities.as_object().expect("an object").clone());
        let client = builder.connect(&format!("http://127.0.0.1:{port}/")).await.expect("a browser session");
        Some(Self { client, driver, _profile: profile })
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
        // Without an answer the driver's end takes the browser along.
        let _ = self.client.clone().close().await;
        end(&mut self.driver);
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        end(&mut self.driver);
    }
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

/// Reads the port that the driver chose from what it prints, and keeps reading so that it never blocks on the pipe.
fn port_of(driver: &mut Child) -> u16 {
    let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let port = lines
        .by_ref()
        .find_map(|line| line.split("successfully on port ").nth(1).map(|rest| rest.trim_end_matches('.').parse().expect("a port")))
        .expect("the driver names its port");
    std::thread::spawn(move || lines.for_each(drop));
    port
}
