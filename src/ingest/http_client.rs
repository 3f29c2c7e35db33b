//! Duty: the one HTTP client with which belayd asks others (sources, webhooks): no redirects, no link-local or metadata
//! addresses, bounded in time and size.
//! Comes in: a request. Goes out: status, headers and at most so many bytes of body. A crash loses the request in flight.

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Certificate, Client, ClientBuilder, Url,
    header::{ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue},
};
use tokio::sync::OnceCell;

use super::address::{AddressRefused, GuardedResolver, refuse_host};

/// Longest wait for a connection, so that a silent peer counts as "has seen nothing" and not as "may have seen the request".
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an idle connection is kept: longer than the usual poll interval, shorter than the usual server's patience.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

const NO_AUTHORITIES: &str =
    "the system's CA certificates cannot be loaded: install the package ca-certificates, or name a CA file where the URL stands";

/// What a client may do, fixed when it is made.
#[derive(Clone, Debug, Default)]
pub struct ClientPolicy {
    /// PEM file of a further certificate authority.
    pub ca: Option<PathBuf>,
    /// Headers sent with every request.
    pub headers: BTreeMap<String, String>,
    /// Whether link-local and metadata addresses may be asked.
    pub allow_link_local: bool,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body as it was sent, within the bound.
    pub body: Bytes,
}

/// Why a request failed, by what its sender can conclude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Address refused by policy, bad URL, bad header, unreadable CA file: repeating is useless until the configuration changes.
    Refused,
    /// The name did not resolve or no connection came about: the other side has seen nothing.
    Connect,
    /// The request may have been sent and the answer did not come in time.
    Timeout,
    /// The request may have been sent and the connection broke, or the answer was cut.
    Broken,
    /// The answer was larger than the bound.
    TooLarge,
}

/// A request that got no whole answer.
#[derive(Clone, Debug)]
pub struct ClientError {
    /// What can be concluded.
    pub kind: FailureKind,
    /// One sentence without the URL, which may hold a secret.
    pub message: String,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What can be concluded from an error of reqwest, told by its innermost cause, which holds no URL.
    fn from_reqwest(error: &reqwest::Error) -> Self {
        let mut cause: &dyn StdError = error;
        while let Some(inner) = cause.source() {
            if let Some(refused) = inner.downcast_ref::<AddressRefused>() {
                return Self::new(FailureKind::Refused, refused.to_string());
            }
            cause = inner;
        }
        let told = if error.source().is_some() { cause.to_string() } else { "no further cause".to_owned() };
        if error.is_connect() {
            Self::new(FailureKind::Connect, format!("no connection: {told}"))
        } else if error.is_timeout() {
            Self::new(FailureKind::Timeout, "no answer in time")
        } else if error.is_builder() {
            Self::new(FailureKind::Refused, format!("the request cannot be made: {told}"))
        } else {
            Self::new(FailureKind::Broken, format!("the connection broke: {told}"))
        }
    }
}

/// A client for one peer. Cheap until its first request, and to clone. It belongs to the runtime on which it is used first.
#[derive(Clone)]
pub struct GuardedClient {
    inner: Arc<Inner>,
}

struct Inner {
    policy: ClientPolicy,
    /// Without certificates: plain HTTP needs none, and the system's take a megabyte.
    plain: OnceCell<Client>,
    tls: OnceCell<Client>,
}

impl fmt::Debug for GuardedClient {
    /// Without the policy, whose headers may hold a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedClient").finish_non_exhaustive()
    }
}

/// What happens to an answer that is larger than the bound.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overflow {
    Refuse,
    Cut,
}

impl GuardedClient {
    /// A client that has connected to nothing and loaded nothing yet.
    pub fn new(policy: ClientPolicy) -> Self {
        Self { inner: Arc::new(Inner { policy, plain: OnceCell::new(), tls: OnceCell::new() }) }
    }

    /// GET `url`; the whole answer must come within `timeout` and hold at most `max_bytes` of body. gzip is asked for and left as
    /// it comes, for [`super::gzip`].
    ///
    /// # Errors
    /// [`ClientError`]; an HTTP status is no error here, redirects come back as such.
    pub async fn get(&self, url: &str, timeout: Duration, max_bytes: usize) -> Result<Answer, ClientError> {
        let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]);
        self.send(url, None, headers, timeout, (max_bytes, Overflow::Refuse)).await
    }

    /// POST `body` to `url` with `headers` in addition to the policy's; the whole answer must come within `timeout`, and the first
    /// `max_bytes` of its body are kept.
    ///
    /// # Errors
    /// [`ClientError`]; an HTTP status is no error here, redirects come back as such.
    pub async fn post(
        &self,
        url: &str,
        body: Bytes,
        headers: &HeaderMap,
        timeout: Duration,
        max_bytes: usize,
    ) -> Result<Answer, ClientError> {
        self.send(url, Some(body), headers.clone(), timeout, (max_bytes, Overflow::Cut)).await
    }

    async fn send(
        &self,
        url: &str,
        body: Option<Bytes>,
        mut headers: HeaderMap,
        timeout: Duration,
        bound: (usize, Overflow),
    ) -> Result<Answer, ClientError> {
        let refused = |message: String| ClientError::new(FailureKind::Refused, message);
        let url = Url::parse(url).map_err(|error| refused(format!("the URL is not valid: {error}")))?;
        let policy = &self.inner.policy;
        refuse_host(&url, policy.allow_link_local).map_err(|error| refused(error.to_string()))?;
        for (name, value) in &policy.headers {
            let name_parsed = HeaderName::try_from(name).map_err(|_| refused(format!("{name:?} is no header name")))?;
            let value = HeaderValue::try_from(value).map_err(|_| refused(format!("the value of header {name:?} is not valid")))?;
            headers.insert(name_parsed, value);
        }
        let exchange = async {
            let client = match url.scheme() {
                "http" => self.inner.plain.get_or_try_init(|| build(None, policy)).await?,
                "https" => self.inner.tls.get_or_try_init(|| build(Some(policy.ca.clone()), policy)).await?,
                _ => return Err(refused("the URL is neither http nor https".to_owned())),
            };
            let request = match body {
                None => client.get(url),
                Some(body) => client.post(url).body(body),
            };
            let answer = request.headers(headers).send().await.map_err(|error| ClientError::from_reqwest(&error))?;
            read(answer, bound).await
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or_else(|_| Err(ClientError::new(FailureKind::Timeout, format!("no whole answer within {timeout:?}"))))
    }
}

/// Reads an answer to its end or its bound.
async fn read(mut answer: reqwest::Response, (max_bytes, overflow): (usize, Overflow)) -> Result<Answer, ClientError> {
    let too_large = || ClientError::new(FailureKind::TooLarge, format!("the answer is larger than {max_bytes} bytes"));
    let announced = answer.content_length().and_then(|length| usize::try_from(length).ok());
    if overflow == Overflow::Refuse && announced.is_some_and(|length| length > max_bytes) {
        return Err(too_large());
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| ClientError::from_reqwest(&error))? {
        let room = max_bytes - body.len();
        if chunk.len() > room {
            if overflow == Overflow::Refuse {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk[..room]);
            break;
        }
        body.extend_from_slice(&chunk);
    }
    let status = answer.status().as_u16();
    Ok(Answer { status, headers: std::mem::take(answer.headers_mut()), body: body.freeze() })
}

/// Makes a client; `tls` holds the further authority where certificates are wanted at all. Reading the system's blocks, so it is
/// done aside.
async fn build(tls: Option<Option<PathBuf>>, policy: &ClientPolicy) -> Result<Client, ClientError> {
    // Who came first has installed it; that it is there is all that counts.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .no_gzip()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(2)
        .user_agent(concat!("belayd/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(GuardedResolver { allow_link_local: policy.allow_link_local });
    let finish = |builder: ClientBuilder| builder.build().map_err(|error| ClientError::from_reqwest(&error));
    let Some(ca) = tls else { return finish(builder.tls_certs_only([])) };
    let job = tokio::task::spawn_blocking(move || match ca {
        Some(path) => finish(builder.tls_certs_merge(certificates(&path)?)),
        None => builder.build().map_err(|_| ClientError::new(FailureKind::Connect, NO_AUTHORITIES)),
    });
    job.await.unwrap_or_else(|_| Err(ClientError::new(FailureKind::Connect, "the client could not be made")))
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, ClientError> {
    let refused = |what: String| ClientError::new(FailureKind::Refused, format!("CA file {}: {what}", path.display()));
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if certificates.is_empty() => Err(refused("it holds no certificate".to_owned())),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(refused("it is no PEM file of certificates".to_owned())),
    }
}

#[cfg(test)]
mod tests;
