//! A connection to the mail server, encrypted and signed in as the configuration says. In: host, port, the way of TLS. Out: a connection
//! on which mails can be handed over, or a verdict; nothing of a mail has been said by then, so every failure may be tried again, except
//! one that a person has to mend.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use lettre::transport::smtp::{
    Error,
    authentication::{Credentials, Mechanism},
    client::{AsyncSmtpConnection, AsyncTokioStream},
    extension::ClientId,
    response::Severity,
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    sync::OnceCell,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{cause, retry, step::InStep};
use crate::{
    config::{SmtpConfig, SmtpTls},
    sinks::{ErrorClass, SendError, escape},
};

/// Most bytes of a server's answer before TLS.
const REPLY_MAX_BYTES: usize = 8 * 1024;
/// Longest wait for a connection to one address: a network that swallows packets must not keep its return from being seen.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// What is read in place of the greeting that a server gives once, before TLS.
const GREETED: &[u8] = b"220 greeted before TLS\r\n";

/// How TLS is spoken, made when it is first needed: reading the system's authorities takes a while and a megabyte.
#[derive(Default)]
pub(super) struct Secure(OnceCell<TlsConnector>);

impl Secure {
    async fn connector(&self, ca: Option<&Path>) -> Result<&TlsConnector, SendError> {
        let ca = ca.map(Path::to_owned);
        let make = || async {
            tokio::task::spawn_blocking(move || connector(ca.as_deref()))
                .await
                .map_err(|error| fatal("tls", error.to_string()))?
                .map_err(|message| fatal("tls", message))
        };
        self.0.get_or_try_init(make).await
    }
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = rustls::RootCertStore::empty();
    // What cannot be read is told where a server's certificate is not trusted for it.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca {
        let wrong = |error: &dyn std::fmt::Display| format!("smtp.ca {}: {error}", path.display());
        let found = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
        let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(&error))?;
        if found.is_empty() {
            return Err(wrong(&"holds no certificate"));
        }
        for certificate in found {
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn fatal(error_type: &'static str, message: String) -> SendError {
    SendError { class: ErrorClass::Fatal, error_type, message }
}

pub(super) async fn connect(config: &SmtpConfig, secure: &Secure) -> Result<AsyncSmtpConnection, SendError> {
    let hello = config.hello.clone().map_or_else(ClientId::default, hello);
    let host = config.host.trim_matches(['[', ']']);
    let connected = dial(host, config.port).await;
    let mut tcp = connected.map_err(|error| retry("connect", format!("no connection to {host}:{}: {error}", config.port)))?;
    // A mail's last line is a small packet behind a large one: it must not wait until that is acknowledged.
    tcp.set_nodelay(true).map_err(|error| retry("connect", error.to_string()))?;
    let stream: Box<dyn AsyncTokioStream> = match config.tls {
        SmtpTls::None => Box::new(tcp),
        SmtpTls::Tls => Box::new(Encrypted { unread: b"", tls: encrypt(config, secure, host, tcp).await? }),
        SmtpTls::Starttls => {
            ask_for_tls(&mut tcp, &hello).await?;
            Box::new(Encrypted { unread: GREETED, tls: encrypt(config, secure, host, tcp).await? })
        }
    };
    let mut conn = AsyncSmtpConnection::connect_with_transport(InStep::of(stream), &hello)
        .await
        .map_err(|error| refused("connect", &error))?;
    if let (Some(username), Some(password)) = (&config.username, &config.password) {
        let credentials = Credentials::new(username.clone(), password.clone());
        conn.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await.map_err(|error| refused("auth", &error))?;
    }
    Ok(conn)
}

/// One address after the other, none for longer than [`CONNECT_MAX`].
async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {address} within {CONNECT_MAX:?}")),
        }
    }
    Err(last)
}

/// An address stands in brackets.
fn hello(name: String) -> ClientId {
    match name.trim_matches(['[', ']']).parse() {
        Ok(std::net::IpAddr::V4(address)) => ClientId::Ipv4(address),
        Ok(std::net::IpAddr::V6(address)) => ClientId::Ipv6(address),
        Err(_) => ClientId::Domain(name),
    }
}

/// A server that says for good that it does not want us has to be looked at by a person; everything else passes.
fn refused(error_type: &'static str, error: &Error) -> SendError {
    let told = escape::one_line(&cause(error), super::ANSWER_MAX_CHARS);
    match error.status() {
        Some(code) if code.severity == Severity::PermanentNegativeCompletion => {
            fatal(error_type, format!("the mail server answered {code} {told}"))
        }
        Some(code) => retry(error_type, format!("the mail server answered {code} {told}")),
        // No way of signing in that both know.
        None if error_type == "auth" && error.is_client() => fatal(error_type, told),
        None => retry(error_type, format!("the connection broke: {told}")),
    }
}

async fn encrypt(config: &SmtpConfig, secure: &Secure, host: &str, tcp: TcpStream) -> Result<TlsStream<TcpStream>, SendError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| fatal("tls", format!("{host} cannot stand in a certificate")))?;
    let connector = secure.connector(config.ca.as_deref()).await?;
    connector.connect(name, tcp).await.map_err(|error| retry("tls", format!("no TLS with {host}: {error}")))
}

/// Greets the server in the clear and has it agree to TLS. Nothing that came in the clear is used beyond this.
async fn ask_for_tls(tcp: &mut TcpStream, hello: &ClientId) -> Result<(), SendError> {
    reply(tcp).await?;
    tcp.write_all(format!("EHLO {hello}\r\n").as_bytes()).await.map_err(|error| broke(&error))?;
    let offered = reply(tcp).await?;
    if !offered.lines().any(|line| line.get(4..).is_some_and(|word| word.trim().eq_ignore_ascii_case("STARTTLS"))) {
        let message = "the mail server offers no STARTTLS, and nothing is sent in the clear; set smtp.tls";
        return Err(fatal("tls", message.to_owned()));
    }
    tcp.write_all(b"STARTTLS\r\n").await.map_err(|error| broke(&error))?;
    reply(tcp).await.map(drop)
}

fn broke(error: &io::Error) -> SendError {
    retry("connect", format!("the connection broke: {error}"))
}

/// One answer to its end. What comes behind it was not asked for: somebody in between may want it to be taken for what the server says
/// under TLS.
async fn reply(tcp: &mut TcpStream) -> Result<String, SendError> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let count = tcp.read(&mut chunk).await.map_err(|error| broke(&error))?;
        bytes.extend_from_slice(&chunk[..count]);
        if count == 0 || bytes.len() > REPLY_MAX_BYTES {
            return Err(retry("connect", "the mail server's answer has no end".to_owned()));
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text.split_inclusive("\r\n");
        let last = lines.find(|line| line.ends_with("\r\n") && line.as_bytes().get(3) != Some(&b'-'));
        let Some(last) = last else { continue };
        if lines.next().is_some() {
            return Err(retry("protocol", "the mail server said more than it was asked before TLS".to_owned()));
        }
        let told = || format!("the mail server answered {}", escape::one_line(last, super::ANSWER_MAX_CHARS));
        return match last.as_bytes().first() {
            Some(b'2') => Ok(text),
            Some(b'5') => Err(fatal("connect", told())),
            _ => Err(retry("connect", told())),
        };
    }
}

/// The stream under TLS, with something to be read before what comes over it.
#[derive(Debug)]
struct Encrypted {
    unread: &'static [u8],
    tls: TlsStream<TcpStream>,
}

impl AsyncTokioStream for Encrypted {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tls.get_ref().0.peer_addr()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.tls).poll_read(context, buffer);
        }
        let count = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..count]);
        self.unread = &self.unread[count..];
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
    }
}
