//! The pages in a real Chromium: the overview served by the real `belayd demo`, the work pages (`work`) by a daemon. Where chromedriver is missing these tests say so and pass;
//! with `CI=true` they fail.

mod answers;
mod browser;
mod dead_readings;
mod demo;
mod work;

use std::{process::Child, time::Duration};

use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};

use browser::Browser;
use demo::Demo;

/// One browser at a time: several at once on a small machine would measure each other.
static TURN: Mutex<()> = Mutex::const_new(());

const SOON: Duration = Duration::from_secs(15);
const LIVE: &str = "document.documentElement.dataset.conn === 'live'";

fn signal(child: &Child, signal: libc::c_int) {
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    // SAFETY: kill takes plain numbers, and the child has not been waited for, so that its id is still its own.
    unsafe { libc::kill(pid, signal) };
}

/// A page of a fresh demo, live.
struct Stage {
    browser: Browser,
    demo: Demo,
    _dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    async fn set() -> Option<Self> {
        let turn = TURN.lock().await;
        let browser = Browser::start().await?;
        let dir = tempfile::tempdir().expect("a directory");
        let demo = Demo::start(dir.path());
        let stage = Self { browser, demo, _dir: dir, _turn: turn };
        stage.open().await;
        Some(stage)
    }

    async fn open(&self) {
        self.browser.client.goto(&self.demo.url).await.expect("the page");
        self.browser.until(LIVE, SOON).await;
    }

    /// Ends the test: nothing may have been written to the console but `expected` words.
    async fn strike(self, expected: &[&str]) {
        let complaints = self.browser.complaints().await;
        let odd: Vec<&String> = complaints.iter().filter(|line| !expected.iter().any(|word| line.contains(word))).collect();
        assert!(odd.is_empty(), "{odd:?}");
        self.browser.stop().await;
    }

    async fn number(&self, expression: &str) -> f64 {
        self.browser.js(&format!("return {expression}")).await.as_f64().expect(expression)
    }
}

#[tokio::test]
async fn readings_move_an_alert_appears_and_the_inbox_shows_its_delivery() {
    let Some(stage) = Stage::set().await else { return };
    let page = &stage.browser;
    assert!(!page.client.current_url().await.expect("an address").as_str().contains("token"), "the token leaves the address bar");
    assert_eq!(page.js("return document.documentElement.dataset.differences").await, "0", "first state and live page agree");

    page.until("document.querySelectorAll('.engines tbody tr').length >= 2", SOON).await;
    page.js("window.before = document.querySelector('.engines tbody').innerText").await;
    page.until("document.querySelector('.engines tbody').innerText !== before", SOON).await;
    page.until("document.querySelector('.engines tbody .spark path').getAttribute('d').startsWith('M')", SOON).await;
    page.js("window.actors = 0; fetch('/admin/actors').then((a) => a.json()).then((a) => { actors = a.items.length })").await;
    page.until("actors > 1 && document.querySelectorAll('.actors tbody tr').length === actors", SOON).await;
    page.until("document.querySelector('[data-key=verdict]').dataset.tone === 'good'", SOON).await;

    page.until("document.querySelectorAll('.timeline li').length >= 1", Duration::from_secs(20)).await;
    page.until("document.querySelectorAll('.mails li').length >= 1", Duration::from_secs(20)).await;
    let shape = page.js("return document.querySelector('.timeline li .i use').getAttribute('href')").await;
    assert!(shape.as_str().is_some_and(|shape| shape.starts_with("#i-")), "a level has a shape and not only a colour: {shape}");
    stage.strike(&[]).await;
}

#[tokio::test]
async fn a_broken_stream_is_told_within_four_seconds_and_heals_by_itself() {
    let Some(mut stage) = Stage::set().await else { return };
    stage.demo.signal(libc::SIGSTOP);
    stage.browser.until("document.documentElement.dataset.conn !== 'live'", Duration::from_secs(4)).await;
    let told = stage.browser.js("return document.getElementById('conn-text').textContent").await;
    stage.browser.until("/\\d/.test(document.getElementById('conn-text').textContent)", SOON).await;
    assert_ne!(told, "Live");
    let title = stage.browser.client.title().await.expect("a title");
    assert!(title.starts_with('⚠'), "the tab tells it too: {title}");
    stage.demo.signal(libc::SIGCONT);
    stage.browser.until(LIVE, SOON).await;

    stage.demo.kill();
    stage.browser.until("document.documentElement.dataset.conn === 'reconnecting'", Duration::from_secs(4)).await;
    stage.demo.again();
    // Sessions are kept on disk: the cookie of the first life holds in the second.
    stage.browser.until(LIVE, Duration::from_secs(20)).await;
    stage.strike(&["/api/stream"]).await;
}

#[tokio::test]
async fn an_alert_is_acknowledged_with_the_keyboard_alone() {
    let Some(stage) = Stage::set().await else { return };
    let page = &stage.browser;
    page.until("document.querySelector('.timeline .ack[data-on=\"1\"]')", Duration::from_secs(20)).await;
    let mut reached = false;
    for _ in 0..40 {
        press(page, '\u{e004}').await;
        if page.js("return document.activeElement.dataset.act === 'ack'").await == json!(true) {
            reached = true;
            break;
        }
        let outline = page.js("return getComputedStyle(document.activeElement).outlineStyle").await;
        assert_ne!(outline, "none", "what has the focus shows it");
    }
    assert!(reached, "the button is reached with the Tab key");
    page.js("window.id = document.activeElement.closest('[data-key]').dataset.key").await;
    press(page, '\u{e007}').await;
    page.until("!['firing'].includes(document.querySelector(`.timeline [data-key='${id}']`)?.dataset.state)", SOON).await;
    assert_eq!(page.js("return document.activeElement === document.body").await, json!(false), "the focus is not lost");
    page.until("document.getElementById('announce').textContent !== ''", SOON).await;
    assert_eq!(page.js("return document.getElementById('alert-problem').hidden").await, json!(true));
    stage.strike(&[]).await;
}

async fn press(page: &Browser, key: char) {
    use fantoccini::actions::{InputSource, KeyAction, KeyActions};
    let keys = KeyActions::new("keyboard".to_owned()).then(KeyAction::Down { value: key }).then(KeyAction::Up { value: key });
    page.client.perform_actions(keys).await.expect("a key");
}

/// The lowest contrast (WCAG 2.2, 1.4.3) among the texts that are shown, against the nearest ground that is painted.
const CONTRAST: &str = "
    const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] !== 0) return c; } };
    let worst = [99, ''];
    for (const e of document.querySelectorAll('body *')) {
        const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
        if (!own || !e.checkVisibility() || e.closest('.sr, script, .ready')) continue;
        const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 120)];
    }
    return worst";

#[tokio::test]
async fn phone_and_desktop_dark_and_light_fit_and_are_legible() {
    let Some(stage) = Stage::set().await else { return };
    let page = &stage.browser;
    page.until("document.querySelectorAll('.timeline li').length >= 1", Duration::from_secs(20)).await;
    let mut grounds: Vec<Value> = Vec::new();
    for (width, height) in [(360, 740), (800, 900), (1400, 900)] {
        let phone = width < 600;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone});
        page.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
        for scheme in ["light", "dark"] {
            let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            page.cdp("Emulation.setEmulatedMedia", features).await;
            let wide = stage.number("document.documentElement.scrollWidth").await;
            assert!(wide <= f64::from(width), "{wide} wide on a screen of {width}");
            let worst = page.js(CONTRAST).await;
            assert!(worst[0].as_f64().is_some_and(|ratio| ratio >= 4.5), "{scheme} at {width}: {worst}");
            grounds.push(page.js("return getComputedStyle(document.documentElement).backgroundColor").await);
        }
    }
    assert_ne!(grounds[0], grounds[1], "dark is not light");
    stage.strike(&[]).await;
}

#[tokio::test]
async fn the_page_speaks_korean_to_a_korean_browser_and_weighs_little() {
    let Some(stage) = Stage::set().await else { return };
    let page = &stage.browser;
    assert_eq!(page.js("return document.documentElement.lang").await, "en");
    page.cdp("Network.enable", json!({})).await;
    page.cdp("Network.setCacheDisabled", json!({"cacheDisabled": true})).await;
    page.cdp("Network.setExtraHTTPHeaders", json!({"headers": {"Accept-Language": "ko-KR,ko;q=0.9,en;q=0.8"}})).await;
    page.client.refresh().await.expect("the page again");
    page.until(LIVE, SOON).await;
    assert_eq!(page.js("return document.documentElement.lang").await, "ko");
    assert_eq!(page.js("return document.getElementById('conn-text').textContent").await, "실시간");
    assert_eq!(page.js("return document.getElementById('h-alerts').textContent").await, "경보");
    assert_eq!(page.js("return document.documentElement.dataset.differences").await, "0");
    let weight = stage
        .number(
            "performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))
            .filter((e) => !e.name.includes('/api/')).reduce((sum, e) => sum + e.transferSize, 0)",
        )
        .await;
    assert!(weight > 5_000.0 && weight <= 40.0 * 1024.0, "{weight} bytes over the wire");
    stage.strike(&[]).await;
}

#[tokio::test]
async fn signing_out_ends_the_page_and_the_token_signs_in_again() {
    let Some(stage) = Stage::set().await else { return };
    let page = &stage.browser;
    let token = stage.demo.url.split("token=").nth(1).expect("a token").to_owned();
    page.js("document.querySelector('.session button').click()").await;
    page.until("document.querySelector('.gate input[name=token]')", SOON).await;
    page.js(&format!(
        "document.querySelector('input[name=token]').value = 'bly_wrong{token}'; document.querySelector('form').submit()"
    ))
    .await;
    page.until("document.querySelector('.gate .problem')", SOON).await;
    page.js(&format!("document.querySelector('input[name=token]').value = '{token}'; document.querySelector('form').submit()"))
        .await;
    page.until(LIVE, SOON).await;

    // The session ends behind the page's back: the page says so and offers to sign in.
    page.js("fetch('/logout', { method: 'POST' })").await;
    page.until("document.querySelector('#conn-text a[href=\"/\"]')", SOON).await;
    assert_eq!(page.js("return document.documentElement.dataset.conn").await, "signedOut");
    stage.strike(&["401", "autocomplete", "username"]).await;
}
