//! The work pages in a real Chromium against a real daemon: each page's main action as a person does it, with names that would be
//! markup if anything let them.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::MutexGuard;

use super::{CONTRAST, SOON, TURN, browser::Browser, press};
use crate::support::{
    daemon::{Daemon, Setup, free_address},
    rows,
    web_receiver::{Receiver, Reply},
};

/// What must stay text everywhere.
pub(super) const HOSTILE: &str = "<img src=x onerror=window.broken=1>\"'</script><b>bold";

/// A daemon with one receiver that is not there, and a browser that is signed in.
pub(super) struct Desk {
    pub(super) browser: Browser,
    pub(super) daemon: Daemon,
    /// Where the receiver would be.
    pub(super) nobody: String,
    _turn: MutexGuard<'static, ()>,
}

impl Desk {
    pub(super) async fn set() -> Option<Self> {
        let turn = TURN.lock().await;
        let browser = Browser::start().await?;
        let nobody = free_address();
        let daemon = Setup::with(&format!(
            "[outbox]\nmax_attempts = 1\n[[webhooks]]\nname = \"hook\"\nurl = \"http://{nobody}/\"\n\
             [[rules]]\nname = \"overheat\"\nmetric = \"temperature\"\nop = \">\"\nthreshold = 350.0\nclear = 340.0\nlevel = \"CRITICAL\"\n\
             [[routes]]\nsinks = [\"log\"]\n"
        ))
        .start();
        let desk = Self { browser, daemon, nobody, _turn: turn };
        desk.sign_in(&desk.daemon.token).await;
        Some(desk)
    }

    async fn sign_in(&self, token: &str) {
        self.browser.client.goto(&format!("http://{}/login", self.daemon.address)).await.expect("the form");
        let fill =
            format!("document.querySelector('input[name=token]').value = '{token}'; document.querySelector('form').submit()");
        self.browser.js(&fill).await;
        self.browser.until("document.documentElement.dataset.conn === 'live'", SOON).await;
        // The browser advises the form to have a field for a name, which a token has not.
        self.browser.complaints().await;
    }

    /// Opens a page and waits until it has asked for what it lists.
    pub(super) async fn open(&self, path: &str) {
        self.browser.client.goto("about:blank").await.expect("nothing");
        self.browser.client.goto(&format!("http://{}{path}", self.daemon.address)).await.expect(path);
        self.browser.until("document.getElementById('list-items')?.getAttribute('aria-busy') === 'false'", SOON).await;
    }

    pub(super) async fn until(&self, condition: &str) {
        self.browser.until(condition, SOON).await;
    }

    /// Presses the button that says so in `place`.
    pub(super) async fn push(&self, place: &str, label: &str) {
        let label = json!(label);
        let button = format!("[...document.querySelectorAll('{place} button')].find((b) => b.textContent.trim() === {label})");
        self.until(&format!("{button}?.checkVisibility()")).await;
        self.browser.js(&format!("{button}.click()")).await;
    }

    /// Fills the dialog that is open and confirms it.
    pub(super) async fn answer(&self, fields: &[(&str, &str)]) {
        self.until("document.getElementById('ask').open").await;
        for (name, value) in fields {
            let value = json!(value);
            let script = format!(
                "const f = document.getElementById('field-{name}'); f.value = {value}; f.dispatchEvent(new Event('change', {{bubbles: true}}))"
            );
            self.browser.js(&script).await;
        }
        self.browser.js("document.getElementById('ask-ok').click()").await;
    }

    /// Waits for the result that is told, and returns it.
    pub(super) async fn result(&self) -> String {
        self.until("!document.getElementById('ask').open && !document.getElementById('done').hidden").await;
        self.text("#done-text").await
    }

    pub(super) async fn text(&self, of: &str) -> String {
        let text = self.browser.js(&format!("return document.querySelector('{of}')?.textContent ?? ''")).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// A message to the receiver that is not there, waited for until it is dead. Returns the id of its delivery.
    fn dead_delivery(&self) -> String {
        let body = json!({"via": "hook", "subject": HOSTILE, "body": HOSTILE});
        let made = self.daemon.post("/api/messages", &body.to_string());
        assert_eq!(made.status, 202, "{made:?}");
        let id = made.json()["deliveries"][0]["id"].as_str().expect("a delivery").to_owned();
        self.daemon.wait_for("the delivery is dead", Duration::from_secs(30), |daemon| {
            daemon.get(&format!("/admin/failures/{id}")).json()["state"] == "dead"
        });
        id
    }

    /// Whether a delivery is as the condition says, and how often a decision was written down for this reason: asked past the daemon.
    fn kept(&self, id: &str, condition: &str, (action, reason): (&str, &str)) -> (i64, i64) {
        let delivery = format!("SELECT COUNT(*) AS n FROM deliveries WHERE id = '{id}' AND {condition}");
        let audit = format!(
            "SELECT COUNT(*) AS n FROM audit WHERE action = '{action}' AND subject = '{id}' AND reason = '{reason}' AND outcome = 'ok'"
        );
        let dir = self.daemon.dir();
        (rows::number(&dir.join("belayd.db"), &delivery), rows::number(&dir.join("data/control.db"), &audit))
    }

    /// An alert of the rule on `engine`, waited for.
    fn alert(&self, engine: &str) -> Value {
        let reading = json!({"engineId": engine, "temperature": 400.0});
        assert_eq!(self.daemon.post("/api/readings", &reading.to_string()).status, 202);
        let find = |daemon: &Daemon| daemon.get(&format!("/api/alerts?subject={engine}")).json()["items"][0].clone();
        self.daemon.wait_for("the alert", Duration::from_secs(30), |daemon| find(daemon)["id"].is_string());
        find(&self.daemon)
    }

    /// Ends the test: nothing was taken for markup, and the console says nothing but `expected`.
    pub(super) async fn clear(self, expected: &[&str]) {
        let broken = self.browser.js("return window.broken ?? document.querySelectorAll('main img, main b b').length").await;
        assert_eq!(broken, 0, "what others wrote became markup");
        let complaints = self.browser.complaints().await;
        let odd: Vec<&String> = complaints.iter().filter(|line| !expected.iter().any(|word| line.contains(word))).collect();
        assert!(odd.is_empty(), "{odd:?}");
        self.browser.stop().await;
    }
}

#[tokio::test]
async fn a_failure_is_found_by_its_cause_seen_with_its_evidence_and_decided_with_a_reason() {
    let Some(desk) = Desk::set().await else { return };
    let id = desk.dead_delivery();
    desk.dead_delivery();
    desk.open("/failures").await;
    desk.until("document.querySelector('#list-items .many')?.textContent === '2'").await;
    desk.browser.js("document.querySelector('#list-items a').click()").await;
    desk.until("document.querySelectorAll('#entry-body .items a').length === 2").await;
    desk.browser.js(&format!("document.querySelector('#entry-body a[href=\"#{id}\"]').click()")).await;
    desk.until("document.querySelector('#entry-body .steps')").await;
    assert!(desk.text("#entry-body h2").await.contains(HOSTILE));
    assert_eq!(desk.browser.js("return document.activeElement.localName").await, "h2", "the focus follows");
    let evidence = desk.browser.js("return document.getElementById('entry-body').innerText").await;
    let told = desk.daemon.get(&format!("/admin/failures/{id}")).json();
    assert!(evidence.as_str().is_some_and(|text| text.contains(told["message"].as_str().expect("a message"))), "{evidence}");

    // Without a reason the browser's own check holds it back; with one it is done and told.
    desk.push("#entry", "Discard").await;
    desk.answer(&[]).await;
    assert_eq!(desk.browser.js("return document.getElementById('ask').open").await, json!(true));
    desk.answer(&[("reason", "the receiver is gone")]).await;
    assert!(desk.result().await.contains("discarded"));
    desk.until("document.querySelector('#list-items .many').textContent === '1'").await;
    assert_eq!(desk.daemon.get(&format!("/admin/failures/{id}")).json()["state"], "discarded");
    let audit = desk.daemon.get("/admin/audit").json();
    assert!(audit.to_string().contains("the receiver is gone"), "{audit}");
    desk.clear(&[]).await;
}

#[tokio::test]
async fn a_delivery_is_set_right_and_a_whole_cause_goes_out_again_at_a_rate() {
    let Some(desk) = Desk::set().await else { return };
    let id = desk.dead_delivery();
    desk.open(&format!("/failures#{id}")).await;
    desk.push("#entry", "Edit and retry").await;
    desk.answer(&[("subject", "Set right"), ("reason", "a slip")]).await;
    assert!(desk.result().await.contains("as edited"));
    // The receiver is still not there, so that it comes back as it was set right.
    desk.daemon.wait_for("it is dead again", Duration::from_secs(30), |daemon| {
        let item = daemon.get(&format!("/admin/failures/{id}")).json();
        item["state"] == "dead" && item["payload"]["message"]["subject"] == "Set right"
    });
    desk.open("/failures").await;
    desk.browser.js("document.querySelector('#list-items a').click()").await;
    desk.push("#entry", "Retry many").await;
    desk.answer(&[("limit", "0"), ("perSecond", "5"), ("reason", "the receiver is back")]).await;
    assert_eq!(desk.browser.js("return document.getElementById('ask').open").await, json!(true), "0 is no number of deliveries");
    desk.answer(&[("limit", "10"), ("perSecond", "5"), ("reason", "the receiver is back")]).await;
    assert!(desk.result().await.starts_with("1 tried again"), "{}", desk.text("#done-text").await);
    desk.clear(&[]).await;
}

#[tokio::test]
async fn retry_sends_a_failure_again_and_mark_as_sent_settles_an_uncertain_one_without_sending_it() {
    let Some(desk) = Desk::set().await else { return };
    let dead = desk.dead_delivery();
    // The receiver comes back, takes what is sent again, and then hangs up on whatever comes.
    let receiver =
        Receiver::start_at(&desk.nobody, |before, _| if before == 0 { Reply::Say("200 OK", "", "") } else { Reply::Cut });
    desk.open(&format!("/failures#{dead}")).await;
    desk.push("#entry", "Retry").await;
    desk.answer(&[("reason", "the receiver is back")]).await;
    assert!(desk.result().await.contains("tried again"), "{}", desk.text("#done-text").await);
    let sent = "state = 'sent' AND attempt = 1 AND settled_at_us IS NOT NULL AND answer LIKE '%200%'";
    let asked = ("delivery.retry", "the receiver is back");
    desk.daemon.wait_for("it is sent", Duration::from_secs(30), |_| desk.kept(&dead, sent, asked) == (1, 1));
    assert_eq!(receiver.came("/").iter().map(|one| one.header("belayd-delivery-id")).collect::<Vec<_>>(), [dead.as_str()]);

    let made = desk.daemon.post("/api/messages", &json!({"via": "hook", "subject": HOSTILE, "body": HOSTILE}).to_string());
    let unknown = made.json()["deliveries"][0]["id"].as_str().expect("a delivery").to_owned();
    let asked = ("delivery.mark-sent", "they called back");
    let uncertain = "state = 'uncertain' AND settled_at_us IS NULL";
    desk.daemon.wait_for("nobody knows", Duration::from_secs(30), |_| desk.kept(&unknown, uncertain, asked) == (1, 0));
    desk.open(&format!("/failures#{unknown}")).await;
    desk.push("#entry", "Mark as sent").await;
    desk.answer(&[("reason", "they called back")]).await;
    assert!(desk.result().await.contains("counts as sent"), "{}", desk.text("#done-text").await);
    let settled = "state = 'sent' AND attempt = 1 AND settled_at_us IS NOT NULL";
    assert_eq!(desk.kept(&unknown, settled, asked), (1, 1));
    desk.until("document.querySelectorAll('#entry-body .buttons button').length === 0").await;
    assert_eq!(receiver.came("/").len(), 2, "it went out once");
    desk.clear(&[]).await;
}

#[tokio::test]
async fn a_message_is_written_sent_followed_and_one_that_is_refused_says_why_at_its_field() {
    let Some(desk) = Desk::set().await else { return };
    desk.open("/messages").await;
    assert!(desk.text("#list-none").await.contains("No message yet"));
    desk.push("main", "New message").await;
    let later = [("via", "log"), ("subject", HOSTILE), ("body", HOSTILE), ("sendAt", "2999-01-01T00:00")];
    desk.answer(&later).await;
    desk.until("!document.getElementById('ask-problem').hidden").await;
    assert!(desk.text("[data-field=sendAt] .note").await.contains("a year ahead"));
    assert_eq!(desk.browser.js("return document.activeElement.id").await, "field-sendAt", "the focus is where the fault is");
    assert_eq!(desk.browser.js("return document.getElementById('field-subject').value").await, HOSTILE, "what was typed stays");
    desk.answer(&[("sendAt", "")]).await;
    assert!(desk.result().await.starts_with("Taken"));
    desk.until("document.querySelector('#entry-body h2')?.textContent.includes('Sent')").await;
    assert!(desk.text("#entry-body h2").await.contains(HOSTILE));
    assert_eq!(desk.browser.js("return document.querySelectorAll('#list-items li').length").await, 1);

    // One that has time can be called off.
    let body = json!({"via": "log", "subject": "later", "body": "x", "sendAt": "2999-01-01T00:00:00Z"});
    let refused = desk.daemon.post("/api/messages", &body.to_string());
    assert_eq!(refused.status, 400, "{refused:?}");
    let soon = desk.browser.js("return new Date(Date.now() + 3600000).toISOString()").await;
    let made =
        desk.daemon.post("/api/messages", &json!({"via": "log", "subject": "later", "body": "x", "sendAt": soon}).to_string());
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    desk.open(&format!("/messages#{id}")).await;
    desk.push("#entry", "Call off").await;
    desk.answer(&[("reason", "not needed")]).await;
    assert!(desk.result().await.starts_with("Called off: 1"));
    desk.until("document.querySelector('#entry-body h2').textContent.includes('Cancelled')").await;
    desk.browser.js("const f = document.querySelector('[name=status]'); f.value = 'cancelled'; f.dispatchEvent(new Event('input', {bubbles: true}))").await;
    desk.until("document.querySelectorAll('#list-items li').length === 1").await;
    desk.clear(&["400"]).await;
}

#[tokio::test]
async fn an_alert_tells_who_was_told_is_acknowledged_and_silenced_after_a_look() {
    let Some(desk) = Desk::set().await else { return };
    let alert = desk.alert("engine-1");
    desk.open("/alerts").await;
    // A machine that does much else has alerts of its own beside this one.
    let row = "[...document.querySelectorAll('#list-items a')].find((a) => a.innerText.includes('engine-1'))";
    desk.until(row).await;
    desk.browser.js(&format!("{row}.click()")).await;
    desk.until("document.querySelectorAll('#entry-body .part').length === 2").await;
    desk.until("document.querySelector('#entry-body .part').innerText.includes('log')").await;
    desk.push("#entry", "Acknowledge").await;
    desk.answer(&[("reason", "on my way")]).await;
    assert!(desk.result().await.contains("overheat"));
    desk.until("document.getElementById('entry-body').innerText.includes('on my way')").await;
    let path = format!("/api/alerts/{}", alert["id"].as_str().expect("an id"));
    assert_eq!(desk.daemon.get(&path).json()["state"], "acknowledged");

    desk.push("#entry", "Silence it").await;
    desk.until("document.getElementById('ask').open").await;
    desk.browser.js("document.getElementById('ask-look').click()").await;
    desk.until("document.getElementById('ask-shown').innerText.includes('match: 1')").await;
    desk.answer(&[("reason", HOSTILE)]).await;
    assert_eq!(desk.result().await, "Silenced.");
    desk.until("document.querySelectorAll('#silences-items li').length === 1").await;
    assert!(desk.text("#silences-items .text").await.contains(HOSTILE));

    // It ends and begins again: of that nobody is told, and the page says why.
    let newest = |daemon: &Daemon| daemon.get("/api/alerts?subject=engine-1").json()["items"][0]["state"].clone();
    for (value, state) in [(300.0, "resolved"), (400.0, "firing")] {
        let reading = json!({"engineId": "engine-1", "temperature": value});
        assert_eq!(desk.daemon.post("/api/readings", &reading.to_string()).status, 202);
        desk.daemon.wait_for(state, Duration::from_secs(30), |daemon| newest(daemon) == state);
    }
    desk.open("/alerts").await;
    desk.until(row).await;
    desk.browser.js(&format!("{row}.click()")).await;
    desk.until("document.querySelector('#entry-body .part')?.innerText.includes('not told: a silence holds it back')").await;
    desk.until("document.querySelectorAll('#silences-items li').length === 1").await;
    desk.push("#silences-items", "End now").await;
    desk.answer(&[("reason", "done")]).await;
    desk.until("document.querySelector('#silences-items .tag').innerText === 'over'").await;
    desk.clear(&[]).await;
}

#[tokio::test]
async fn an_issue_is_opened_talked_about_and_resolved() {
    let Some(desk) = Desk::set().await else { return };
    desk.open("/issues").await;
    desk.push("main", "New issue").await;
    desk.answer(&[("title", HOSTILE), ("body", HOSTILE), ("level", "WARNING")]).await;
    desk.until("document.querySelector('#entry-body h2')?.textContent.includes('Open')").await;
    assert!(desk.text("#entry-body h2").await.contains(HOSTILE));
    let say =
        format!("document.getElementById('comment').value = {}; document.querySelector('.comment button').click()", json!(HOSTILE));
    desk.browser.js(&say).await;
    desk.until("[...document.querySelectorAll('#entry-body .steps .text')].some((p) => p.textContent.includes('onerror'))").await;
    desk.push("#entry", "Start").await;
    desk.answer(&[("reason", "on it")]).await;
    desk.until("document.querySelector('#entry-body h2').textContent.includes('In progress')").await;
    desk.push("#entry", "Resolve").await;
    desk.answer(&[("reason", "mended")]).await;
    desk.until("document.querySelector('#entry-body h2').textContent.includes('Resolved')").await;
    desk.until("document.querySelector('#list-items .tag').innerText === 'Resolved'").await;
    desk.clear(&[]).await;
}

#[tokio::test]
async fn a_test_through_a_sink_shows_what_came_of_it() {
    let Some(desk) = Desk::set().await else { return };
    desk.open("/sinks").await;
    let row = "[...document.querySelectorAll('#list-items li')].find((li) => li.dataset.key === 'NAME')";
    for (name, told) in [("log", "Sent"), ("hook", "Dead")] {
        let row = row.replace("NAME", name);
        desk.until(&row).await;
        desk.browser.js(&format!("{row}.querySelector('button').click()")).await;
        desk.answer(&[("reason", "is it there?")]).await;
        desk.until(&format!("{row}.querySelector('.shown')?.innerText.includes('{told}')")).await;
        assert!(desk.result().await.ends_with(told));
    }
    desk.clear(&[]).await;
}

#[tokio::test]
async fn work_pages_fit_phone_and_desktop_dark_and_light_and_are_legible() {
    let Some(desk) = Desk::set().await else { return };
    let page = &desk.browser;
    let dead = desk.dead_delivery();
    let alert = desk.alert("engine-1");
    let opened = desk.daemon.post("/api/issues", &json!({"title": HOSTILE}).to_string()).json();
    let id = |value: &Value| value["id"].as_str().expect("an id").to_owned();
    let message = desk.daemon.get("/api/messages").json()["items"][0].clone();
    let paths = [
        "/failures".to_owned(),
        format!("/failures#{dead}"),
        format!("/messages#{}", id(&message)),
        format!("/alerts#{}", id(&alert)),
        format!("/issues#{}", id(&opened)),
        "/sinks".to_owned(),
    ];
    for (width, height) in [(360, 740), (800, 900), (1400, 900)] {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        page.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
        for path in &paths {
            desk.open(path).await;
            if path.contains('#') {
                desk.until("document.querySelector('#entry-body h2')").await;
            }
            for scheme in ["light", "dark"] {
                page.cdp("Emulation.setEmulatedMedia", json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}))
                    .await;
                let wide = page.js("return document.documentElement.scrollWidth").await.as_f64().expect("a width");
                assert!(wide <= f64::from(width), "{path}: {wide} wide on a screen of {width}");
                let worst = page.js(CONTRAST).await;
                assert!(worst[0].as_f64().is_some_and(|ratio| ratio >= 4.5), "{path} {scheme} at {width}: {worst}");
            }
        }
    }
    desk.clear(&[]).await;
}

#[tokio::test]
async fn who_may_only_look_is_offered_no_decision_and_the_keyboard_reaches_an_entry_and_back() {
    let Some(desk) = Desk::set().await else { return };
    let page = &desk.browser;
    desk.dead_delivery();
    let viewer = desk.daemon.create_token("looks", "viewer");
    page.client.delete_all_cookies().await.expect("signed out");
    desk.sign_in(&viewer).await;
    let links = page.js("return [...document.querySelectorAll('.nav a')].map((a) => a.getAttribute('href')).join(' ')").await;
    assert_eq!(links, "/ /alerts /issues");
    assert_eq!(desk.daemon.post("/api/issues", r#"{"title":"bearing"}"#).status, 201);
    desk.open("/issues").await;
    assert_eq!(page.js("return document.getElementById('new').checkVisibility()").await, json!(false));
    let mut reached = false;
    for _ in 0..30 {
        press(page, '\u{e004}').await;
        reached = page.js("return document.activeElement.matches('#list-items a')").await == json!(true);
        if reached {
            break;
        }
    }
    assert!(reached, "a row is reached with the Tab key");
    press(page, '\u{e007}').await;
    desk.until("document.activeElement.matches('#entry-body h2')").await;
    assert_eq!(page.js("return document.querySelectorAll('#entry-body button').length").await, 0);
    page.client.back().await.expect("back");
    desk.until("document.activeElement.matches('#list-items a')").await;

    // What belongs to operators is refused in words, with what to do.
    for path in ["/failures", "/messages"] {
        desk.open(path).await;
        desk.until("document.getElementById('list-problem').innerText.includes('403')").await;
        assert!(desk.text("#list-problem .note").await.contains("role"), "{path}");
    }
    desk.clear(&["403"]).await;
}
