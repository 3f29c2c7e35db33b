//! The demo's receivers: take the mails, chats and webhooks that real ones would get, and keep the newest for the page.
//!
//! In: POSTs on one loopback port, in the forms of Slack, Discord, a bot and a webhook; SMTP on another ([`super::mail`]). Out: an [`Inbox`] of
//! at most 50 items. It shows that an alarm really left through a socket. A
//! crash loses the inbox, which is a toy; the deliveries themselves are in the outbox.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    host::Host,
    mail::{Mail, MailHost},
};

/// Most items kept; the oldest falls out.
pub const INBOX_MAX: usize = 50;
const BODY_MAX_BYTES: usize = 64 * 1024;
/// What is shown of a body, in characters.
const BODY_MAX_CHARS: usize = 500;

/// One delivery that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caught {
    /// When it arrived first, RFC 3339.
    pub at: String,
    /// The way it came: `webhook`, `mail`, `slack`, `discord` or `bot`.
    pub via: &'static str,
    /// Its headline.
    pub title: String,
    /// Its text.
    pub body: String,
    /// How often it came again with the same delivery id.
    pub repeats: u32,
    delivery_id: Option<String>,
}

/// What arrived, newest first.
#[derive(Debug, Default)]
pub struct Inbox(Mutex<VecDeque<Caught>>);

impl Inbox {
    /// A copy of the items, newest first.
    pub fn items(&self) -> Vec<Caught> {
        self.lock().iter().cloned().collect()
    }

    fn put(&self, item: Caught) {
        let mut items = self.lock();
        let repeated = items.iter_mut().find(|have| item.delivery_id.is_some() && have.delivery_id == item.delivery_id);
        if let Some(have) = repeated {
            have.repeats += 1;
            return;
        }
        items.push_front(item);
        items.truncate(INBOX_MAX);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Caught>> {
        // A panic elsewhere cannot leave a half-written item behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receivers that run until they are dropped.
#[derive(Debug)]
pub struct Catcher {
    http: Host,
    mail: MailHost,
}

impl Catcher {
    /// Where `/webhook`, `/slack`, `/discord` and `/bot` are.
    pub fn http(&self) -> SocketAddr {
        self.http.addr()
    }

    /// Where mail is taken.
    pub fn mail(&self) -> SocketAddr {
        self.mail.addr()
    }
}

/// Starts the receivers on free loopback ports.
///
/// # Errors
/// Where no port can be bound.
pub fn start() -> io::Result<(Catcher, Arc<Inbox>)> {
    let inbox = Arc::new(Inbox::default());
    let shared = Arc::clone(&inbox);
    let host = Host::start("catcher", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), move |config| {
        config
            .app_data(web::Data::from(Arc::clone(&shared)))
            .app_data(web::PayloadConfig::new(BODY_MAX_BYTES))
            .route("/webhook", web::post().to(catch))
            .route("/slack", web::post().to(slack))
            .route("/discord", web::post().to(discord))
            .route("/bot", web::post().to(bot));
    })?;
    let mails = Arc::clone(&inbox);
    let mail = MailHost::start(Arc::new(move |Mail { subject, text, delivery_id }| {
        mails.put(caught("mail", subject, &text, delivery_id))
    }))?;
    Ok((Catcher { http: host, mail }, inbox))
}

/// What the catcher understands of an alert's payload; anything else is shown as it is.
#[derive(Default, Deserialize)]
struct Notice {
    title: Option<String>,
    text: Option<String>,
    message: Option<Message>,
}

/// A message that somebody wrote.
#[derive(Deserialize)]
struct Message {
    subject: String,
    body: String,
}

async fn catch(request: HttpRequest, body: Bytes, inbox: web::Data<Inbox>) -> HttpResponse {
    let notice: Notice = serde_json::from_slice(&body).unwrap_or_default();
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (title, text) = match notice.message {
        Some(message) => (Some(message.subject), Some(message.body)),
        None => (notice.title, notice.text),
    };
    let title = title.unwrap_or_else(|| "a delivery without a title".to_owned());
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    inbox.put(caught("webhook", title, &text, header("belayd-delivery-id").or_else(|| header("idempotency-key"))));
    HttpResponse::NoContent().finish()
}

fn caught(via: &'static str, title: String, text: &str, delivery_id: Option<String>) -> Caught {
    Caught {
        at: Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true),
        via,
        title,
        body: text.chars().take(BODY_MAX_CHARS).collect(),
        repeats: 0,
        delivery_id,
    }
}

/// As Slack takes it: headline and sections in blocks. Slack undoes what its senders escape.
async fn slack(body: web::Json<Value>, inbox: web::Data<Inbox>) -> HttpResponse {
    let blocks = body["blocks"].as_array().map_or(&[][..], Vec::as_slice);
    let texts: Vec<&str> =
        blocks.iter().filter(|block| block["type"] == "section").filter_map(|block| block["text"]["text"].as_str()).collect();
    let plain = |text: &str| text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let title = plain(body["text"].as_str().unwrap_or_default());
    inbox.put(caught("slack", title, &plain(&texts.join("\n")), None));
    HttpResponse::Ok().body("ok")
}

/// As Discord takes it: one embed. It shows no backslash before a sign.
async fn discord(body: web::Json<Value>, inbox: web::Data<Inbox>) -> HttpResponse {
    let text = |name: &str| body["embeds"][0][name].as_str().unwrap_or_default().replace('\\', "");
    inbox.put(caught("discord", text("title"), &text("description"), None));
    HttpResponse::Ok().json(json!({"id": "1"}))
}

/// As docs/SINKS.md asks of a bot.
async fn bot(body: web::Json<Value>, inbox: web::Data<Inbox>) -> HttpResponse {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    inbox.put(caught("bot", text("title"), &text("text"), Some(format!("bot {}", text("deliveryId")))));
    HttpResponse::NoContent().finish()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::{HeaderMap, HeaderName};

    use super::*;
    use crate::ingest::http_client::{ClientPolicy, GuardedClient};

    async fn post(catcher: &Catcher, id: &str, body: String) -> u16 {
        let client = GuardedClient::new(ClientPolicy::default());
        let id = HeaderMap::from_iter([(HeaderName::from_static("belayd-delivery-id"), id.parse().expect("a header"))]);
        let url = format!("http://{}/webhook", catcher.http());
        client.post(&url, body.into(), &id, Duration::from_secs(10), 1024).await.expect("an answer").status
    }

    #[tokio::test]
    async fn the_inbox_keeps_the_newest_and_counts_repeats() {
        let (host, inbox) = start().expect("it listens");
        for n in 0..INBOX_MAX + 5 {
            let body = format!(r#"{{"title":"alert {n}","text":"too hot","level":"CRITICAL"}}"#);
            assert_eq!(post(&host, &n.to_string(), body).await, 204);
        }
        assert_eq!(post(&host, "54", "{}".into()).await, 204);
        let items = inbox.items();
        assert_eq!(items.len(), INBOX_MAX);
        assert_eq!((items[0].title.as_str(), items[0].body.as_str(), items[0].repeats), ("alert 54", "too hot", 1));
        assert_eq!(items[INBOX_MAX - 1].title, "alert 5");
    }

    #[tokio::test]
    async fn what_is_no_alert_is_shown_as_it_is_and_what_is_too_big_is_refused() {
        let (host, inbox) = start().expect("it listens");
        assert_eq!(post(&host, "a", "plain".into()).await, 204);
        assert_eq!(inbox.items()[0].body, "plain");
        assert_eq!(post(&host, "b", "x".repeat(BODY_MAX_BYTES + 1)).await, 413);
        assert_eq!(inbox.items().len(), 1);
    }

    #[tokio::test]
    async fn chats_and_mails_arrive_under_their_way() {
        let (catcher, inbox) = start().expect("it listens");
        let client = GuardedClient::new(ClientPolicy::default());
        let json = HeaderMap::from_iter([(reqwest::header::CONTENT_TYPE, "application/json".parse().expect("a header"))]);
        for (path, body, answer) in [
            ("slack", json!({"text": "a &lt; b", "blocks": [{"type": "section", "text": {"text": "x &amp; y"}}]}), "ok"),
            ("discord", json!({"embeds": [{"title": "a\\*", "description": "b"}]}), r#"{"id":"1"}"#),
            ("bot", json!({"deliveryId": "1", "title": "a", "text": "b"}), ""),
        ] {
            let url = format!("http://{}/{path}", catcher.http());
            let said = client.post(&url, body.to_string().into(), &json, Duration::from_secs(10), 1024).await.expect("an answer");
            assert_eq!(said.body, answer, "{path}");
        }
        let items: Vec<_> = inbox.items().into_iter().map(|item| (item.via, item.title, item.body)).collect();
        let expected = [("bot", "a", "b"), ("discord", "a*", "b"), ("slack", "a < b", "x & y")];
        assert_eq!(items, expected.map(|(via, title, body)| (via, title.to_owned(), body.to_owned())));
    }
}
