//! The mail sink: one delivery is one mail to one recipient, so that each has an outcome of its own.
//!
//! In: a letter with an address. Out: the server's last line, or a verdict. The dialogue is held step by step, so that at each failure it
//! is known whether the mail may have been taken: until its last line has been handed over it cannot have been (an unfinished mail is
//! thrown away by every server), from then on only an answer tells. The Message-ID is the delivery's id in each attempt. Connections are
//! kept for the next mail, at most as many as there may be sends at once. A crash loses them and nothing else.

mod link;
mod mail;
mod pool;
mod step;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;
use lettre::transport::smtp::{
    Error,
    client::AsyncSmtpConnection,
    commands::{Data, Mail, Rcpt, Rset},
    extension::{Extension, MailBodyParameter, MailParameter},
    response::{Response, Severity},
};

use self::{mail::Composed, pool::Pool};
use super::{ErrorClass, Letter, Limits, SendError, Sent, Sink, escape, limits_of, templates::Templates};
use crate::config::{SmtpConfig, SmtpTls};

/// The name of this sink in routes.
pub const NAME: &str = "smtp";

/// Bytes that are handed over at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// What of a server's answer is kept, characters.
const ANSWER_MAX_CHARS: usize = 300;

/// Sends mail by one server.
pub struct SmtpSink {
    config: SmtpConfig,
    templates: Arc<Templates>,
    secure: link::Secure,
    pool: Arc<Pool>,
}

impl std::fmt::Debug for SmtpSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmtpSink").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Where in the dialogue a server said no.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It was told who sends.
    Sender,
    /// It was told to whom.
    Recipient,
    /// It was given the mail.
    Body,
}

impl SmtpSink {
    /// A sink that has connected to nothing yet. `concurrency` is what holds where the section does not say.
    pub fn new(config: &SmtpConfig, concurrency: usize, templates: Arc<Templates>) -> Self {
        let most = config.settings.concurrency.unwrap_or(concurrency);
        Self { config: config.clone(), templates, secure: link::Secure::default(), pool: Pool::of(most) }
    }

    /// Connects, signs in and hangs up: for `belayd check --connect`.
    ///
    /// # Errors
    /// Why it does not work, in a sentence.
    pub async fn probe(&self) -> Result<String, String> {
        let mut conn = self.connect().await.map_err(|error| error.to_string())?;
        let said =
            format!("{} takes mail{}", conn.server_info().name(), if self.config.tls == SmtpTls::None { "" } else { ", over TLS" });
        let said = if self.config.username.is_some() { format!("{said}, signed in") } else { said };
        // It has what it came for; whether the server says goodbye is of no interest.
        let _ = self.timed(conn.quit()).await;
        Ok(escape::one_line(&said, ANSWER_MAX_CHARS))
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, SendError> {
        let patience = self.config.timeout;
        tokio::time::timeout(patience, link::connect(&self.config, &self.secure))
            .await
            .unwrap_or_else(|_| Err(retry("connect", format!("no connection within {patience:?}"))))
    }

    /// `None` where the time ran out.
    async fn timed<T>(&self, step: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(self.config.timeout, step).await.ok()
    }

    async fn deliver(&self, letter: &Letter) -> Result<Sent, SendError> {
        let mail = mail::compose(&self.config, &self.templates, letter)?;
        let mut conn = self.begin(&mail).await?;
        let sent = self.hand_over(&mut conn, &mail).await;
        match &sent {
            Ok(_) => self.pool.park(conn),
            // Where the server said no, the connection is as good as before.
            Err(Ended { usable: true, .. }) => {
                if let Some(Ok(_)) = self.timed(conn.command(Rset)).await {
                    self.pool.park(conn);
                }
            }
            Err(_) => drop(conn),
        }
        sent.map_err(|ended| ended.told(&mail))
    }

    /// A connection on which the server knows the sender. One that was kept may have been hung up meanwhile: nothing of this mail has
    /// been said by then, so a fresh one is as good.
    async fn begin(&self, mail: &Composed) -> Result<AsyncSmtpConnection, SendError> {
        if let Some(mut kept) = self.pool.take() {
            // What has come unasked meanwhile is seen by then, whatever this thread was busy with.
            tokio::task::yield_now().await;
            match self.name_sender(&mut kept, mail).await {
                Ok(()) => return Ok(kept),
                Err(Ended { usable: true, error }) => {
                    if let Some(Ok(_)) = self.timed(kept.command(Rset)).await {
                        self.pool.park(kept);
                    }
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        let mut fresh = self.connect().await?;
        self.name_sender(&mut fresh, mail).await.map_err(|ended| ended.told(mail))?;
        Ok(fresh)
    }

    async fn name_sender(&self, conn: &mut AsyncSmtpConnection, mail: &Composed) -> Result<(), Ended> {
        let mut options = Vec::new();
        let lacks = |what: &str| Ended {
            usable: true,
            error: SendError {
                class: ErrorClass::Reject,
                error_type: "not_supported",
                message: format!("the mail server does not take {what}"),
            },
        };
        if !mail.is_ascii_envelope() {
            if !conn.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Err(lacks("addresses beyond ASCII (SMTPUTF8)"));
            }
            options.push(MailParameter::SmtpUtfEight);
        }
        if !mail.bytes.is_ascii() {
            if !conn.server_info().supports_feature(Extension::EightBitMime) {
                return Err(lacks("mails beyond ASCII (8BITMIME)"));
            }
            options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        let said = self.timed(conn.command(Mail::new(Some(mail.from.clone()), options))).await;
        judge(said, Step::Sender).map(drop)
    }

    async fn hand_over(&self, conn: &mut AsyncSmtpConnection, mail: &Composed) -> Result<Sent, Ended> {
        let said = self.timed(conn.command(Rcpt::new(mail.to.clone(), Vec::new()))).await;
        judge(said, Step::Recipient)?;
        let said = judge(self.timed(conn.command(Data)).await, Step::Body)?;
        if !said.has_code(354) {
            return Err(Ended::broken(retry("protocol", format!("the server answered {} to DATA", line(&said)))));
        }
        // Raised before the last line is handed over, when all before it has been.
        let last_line = AtomicBool::new(false);
        let end = std::iter::once_with(|| {
            last_line.store(true, Ordering::Relaxed);
            &[][..]
        });
        let said = self.timed(conn.message_iter(mail.bytes.chunks(CHUNK_BYTES).chain(end))).await;
        match said {
            Some(Err(ref error)) if error.status().is_some() => judge(said, Step::Body).map(|_| Sent::default()),
            Some(Ok(answer)) => Ok(Sent { answer: line(&answer) }),
            cut => {
                let (error_type, what) = match &cut {
                    None => ("timeout", format!("no answer within {:?}", self.config.timeout)),
                    Some(Err(error)) => ("broken", format!("the connection broke: {}", cause(error))),
                    Some(Ok(_)) => ("broken", String::new()),
                };
                let taken = last_line.load(Ordering::Relaxed);
                let (class, when) = if taken {
                    (ErrorClass::Unknown, "after the whole mail")
                } else {
                    (ErrorClass::Retry { after: None }, "before the end of the mail, which was not taken")
                };
                Err(Ended::broken(SendError { class, error_type, message: format!("{what}, {when}") }))
            }
        }
    }
}

impl Sink for SmtpSink {
    fn name(&self) -> &str {
        NAME
    }

    fn limits(&self) -> Limits {
        limits_of(&self.config.settings)
    }

    fn takes_recipients(&self) -> bool {
        true
    }

    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<Sent, SendError>> {
        Box::pin(self.deliver(letter))
    }
}

/// A dialogue that came to no good end.
struct Ended {
    /// Whether the connection can be used on.
    usable: bool,
    error: SendError,
}

impl Ended {
    fn broken(error: SendError) -> Self {
        Self { usable: false, error }
    }

    /// The error without the recipient's address, which servers like to repeat and which belongs into no log.
    fn told(self, mail: &Composed) -> SendError {
        let address = mail.to.to_string();
        SendError { message: self.error.message.replace(&address, "the recipient"), ..self.error }
    }
}

fn retry(error_type: &'static str, message: String) -> SendError {
    SendError { class: ErrorClass::Retry { after: None }, error_type, message }
}

/// What follows from the server's word before the mail's last line is handed over, and from a refusal of it.
fn judge(said: Option<Result<Response, Error>>, step: Step) -> Result<Response, Ended> {
    let error = match said {
        Some(Ok(response)) => return Ok(response),
        Some(Err(error)) => error,
        None => return Err(Ended::broken(retry("timeout", "the server did not answer in time; nothing was sent".to_owned()))),
    };
    let Some(code) = error.status() else {
        return Err(Ended::broken(retry("broken", format!("the connection broke before anything was sent: {}", cause(&error)))));
    };
    let number = u16::from(code);
    let message = escape::one_line(&format!("the mail server answered {code} {}", cause(&error)), ANSWER_MAX_CHARS);
    let (class, error_type) = match (code.severity, step, number) {
        // It is about to close, or has no place for anybody: not a word about this mail.
        (_, _, 421) => (ErrorClass::Retry { after: None }, "smtp_421"),
        (Severity::TransientNegativeCompletion, ..) => (ErrorClass::Retry { after: None }, "smtp_4xx"),
        // Signing in is what it wants, or what it did not take: so with every mail.
        (_, _, 530 | 534 | 535 | 538) => (ErrorClass::Fatal, "auth"),
        // Too large for it; everything else that is wrong with a sender is wrong with every mail.
        (_, Step::Sender, 552) => (ErrorClass::Reject, "smtp_5xx"),
        (_, Step::Sender, _) => (ErrorClass::Fatal, "sender"),
        _ => (ErrorClass::Reject, "smtp_5xx"),
    };
    // 421: the server is about to hang up.
    Err(Ended { usable: number != 421, error: SendError { class, error_type, message } })
}

/// What the server said behind its code, or what the system says.
fn cause(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

/// The server's answer in one line, with its code.
fn line(response: &Response) -> String {
    let text: Vec<&str> = response.message().collect();
    escape::one_line(&format!("{} {}", response.code(), text.join(" ")), ANSWER_MAX_CHARS)
}

#[cfg(test)]
#[path = "smtp_tests.rs"]
mod tests;
