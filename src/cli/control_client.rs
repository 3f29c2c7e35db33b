//! Asking the running daemon through its control socket. In: a method, a path, a body. Out: JSON, or a [`Failed`] that says what to
//! do. The socket lies in the data directory and only its owner can open it, so no token is needed.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use reqwest::{Method, Response, Url};
use serde_json::Value;

use super::{GlobalArgs, complain, exit};
use crate::daemon::CONTROL_SOCKET;

/// Longest wait for an answer; live tails have none.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nobody listens on the socket.
    NotRunning(PathBuf),
    /// The daemon refused.
    Refused {
        /// The stable code.
        code: String,
        /// What happened.
        message: String,
        /// What to do.
        hint: String,
    },
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRunning(dir) => write!(
                f,
                "no daemon is running on {}; start it with `belayd run`, or name its configuration with --config",
                dir.display()
            ),
            Self::Refused { code, message, hint } => write!(f, "{message} ({code})\n  {hint}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl Failed {
    /// Says so on stderr.
    pub(super) fn complain(&self) -> ExitCode {
        complain(&self.to_string());
        ExitCode::from(exit::FAILED)
    }
}

/// A client of one daemon.
#[derive(Debug)]
pub(super) struct ControlClient {
    http: reqwest::Client,
    dir: PathBuf,
}

/// Runs `ask` against the daemon that the configuration names, and prints what it returns.
pub(super) fn with_daemon<F>(global: &GlobalArgs, ask: impl FnOnce(ControlClient) -> F) -> ExitCode
where
    F: Future<Output = Result<String, Failed>>,
{
    let dir = match global.data_dir() {
        Ok(dir) => dir,
        Err(code) => return code,
    };
    match block_on(async { ask(ControlClient::new(&dir)?).await }) {
        Ok(text) => super::print(&text),
        Err(failed) => failed.complain(),
    }
}

/// Runs a future to its end on this thread.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failed::Other(format!("cannot start: {error}")))?.block_on(future)
}

impl ControlClient {
    /// A client for the daemon on `dir`; connects when it is first used.
    pub(super) fn new(dir: &Path) -> Result<Self, Failed> {
        // reqwest wants to know how TLS would be done, though no TLS passes this socket; the system's CA certificates, which a small
        // machine may not have, must not be asked for.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .unix_socket(dir.join(CONTROL_SOCKET))
            .tls_certs_only([])
            .connect_timeout(Duration::from_secs(5));
        let http = builder.build().map_err(|error| Failed::Other(format!("cannot make a client: {error}")))?;
        Ok(Self { http, dir: dir.to_owned() })
    }

    /// GET of the path made of `segments`, with `query`.
    pub(super) async fn get(&self, segments: &[&str], query: &[(&str, String)]) -> Result<Value, Failed> {
        self.json(Method::GET, segments, query, None).await
    }

    /// Sends `body` and returns the answer's JSON.
    pub(super) async fn send(&self, method: Method, segments: &[&str], body: &Value) -> Result<Value, Failed> {
        self.json(method, segments, &[], Some(body)).await
    }

    async fn json(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Value, Failed> {
        let answer = tokio::time::timeout(ANSWER_WAIT, async {
            let response = self.open(method, segments, query, body).await?;
            response.bytes().await.map_err(|error| Failed::Other(format!("the answer broke off: {error}")))
        });
        let bytes = answer.await.map_err(|_| Failed::Other(format!("no answer within {} s", ANSWER_WAIT.as_secs())))??;
        serde_json::from_slice(&bytes).map_err(|error| Failed::Other(format!("the answer is no JSON: {error}")))
    }

    /// Sends a request and returns the answer once its head is there and says that all is well.
    pub(super) async fn open(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Response, Failed> {
        let mut request = self.http.request(method, url(segments, query)?);
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body: Value = response.bytes().await.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let text = |name: &str| body["error"][name].as_str().unwrap_or_default().to_owned();
        if text("code").is_empty() {
            return Err(Failed::Other(format!("the daemon answered {status}")));
        }
        let mut message = text("message");
        let details = body["error"]["details"].as_array().map_or(&[][..], Vec::as_slice);
        // One fault stands in the message already.
        for detail in details.iter().filter(|_| details.len() > 1) {
            if let (Some(field), Some(reason)) = (detail["field"].as_str(), detail["message"].as_str()) {
                message.push_str(&format!("\n  {field}: {reason}"));
            }
        }
        Err(Failed::Refused { code: text("code"), message, hint: text("hint") })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failed {
        if error.is_connect() {
            return Failed::NotRunning(self.dir.clone());
        }
        Failed::Other(format!("the daemon does not answer: {error}"))
    }
}

fn url(segments: &[&str], query: &[(&str, String)]) -> Result<Url, Failed> {
    let mut url = Url::parse("http://localhost/").map_err(|error| Failed::Other(error.to_string()))?;
    if let Ok(mut path) = url.path_segments_mut() {
        path.clear().extend(segments);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_cannot_leave_its_place_in_the_path() {
        let url = url(&["admin", "tokens", "../x?y/z"], &[("a", "b&c".into())]).expect("a URL");
        assert_eq!(url.as_str(), "http://localhost/admin/tokens/..%2Fx%3Fy%2Fz?a=b%26c");
    }

    #[test]
    fn without_a_daemon_it_says_how_to_start_one() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let failed =
            block_on(async { ControlClient::new(dir.path())?.get(&["api", "state"], &[]).await }).expect_err("nobody listens");
        let text = failed.to_string();
        assert!(text.contains("no daemon is running on") && text.contains("belayd run"), "{text}");
    }
}
