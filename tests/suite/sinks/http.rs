//! Webhooks, chats and bots against HTTP receivers that answer well and badly.

use std::process::{Command, Stdio};

use serde_json::json;

use super::{QUICK, ended, failures, overheat, test_send};
use crate::support::{
    daemon::{Daemon, Setup},
    web_receiver::{Receiver, Reply, Request},
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn ok(_: usize, path: &str) -> Reply {
    match path {
        "/slack" => Reply::Say("200 OK", "", "ok"),
        path if path.starts_with("/discord") => Reply::Say("200 OK", "Content-Type: application/json\r\n", r#"{"id":"77"}"#),
        _ => Reply::Say("204 No Content", "", ""),
    }
}

fn everywhere(url: &str) -> String {
    format!(
        "{QUICK}[slack]\nurl = \"{url}/slack\"\n[discord]\nurl = \"{url}/discord\"\n[[webhooks]]\nname = \"hook\"\nurl = \"{url}/hook\"\n\
         secret = \"{SECRET}\"\n[[bots]]\nname = \"bot\"\nurl = \"{url}/bot\"\ntoken = \"hunter2\"\nroom = \"운영\"\n"
    )
}

/// What Python makes of a signature, by its own library and the words of the standard.
fn python_says(request: &Request) -> String {
    let script = "import base64, hashlib, hmac, json, sys\n\
                  asked = json.load(sys.stdin)\n\
                  key = base64.b64decode(asked['secret'].removeprefix('whsec_'))\n\
                  signed = f\"{asked['id']}.{asked['timestamp']}.{asked['body']}\".encode()\n\
                  print('v1,' + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode())\n";
    let mut child =
        Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python runs");
    let asked = json!({
        "secret": SECRET, "id": request.header("webhook-id"), "timestamp": request.header("webhook-timestamp"), "body": request.body,
    });
    std::io::Write::write_all(child.stdin.as_mut().expect("piped"), asked.to_string().as_bytes()).expect("writes");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn an_alert_reaches_every_way_in_its_form() {
    let receiver = Receiver::start(ok);
    let daemon = Setup::with(&everywhere(&receiver.url)).start();
    overheat(&daemon, "engine-<1>".replace(['<', '>'], "_").as_str());
    let slack = receiver.wait_for("/slack", 1).remove(0).json();
    assert_eq!(slack["blocks"][0]["text"]["text"], "[CRITICAL] overheat engine-_1_: firing", "{slack:#}");
    assert!(
        slack["blocks"][1]["text"]["text"].as_str().is_some_and(|text| text.contains("&gt; 350") && text.contains("*Value* 400")),
        "{slack:#}"
    );
    let discord = receiver.wait_for("/discord", 1).remove(0);
    assert_eq!((discord.path.as_str(), &discord.json()["allowed_mentions"]), ("/discord?wait=true", &json!({"parse": []})));
    assert!(
        discord.json()["embeds"][0]["title"].as_str().is_some_and(|title| title.contains("engine-\\_1\\_")),
        "{}",
        discord.body
    );
    let bot = receiver.wait_for("/bot", 1).remove(0);
    assert_eq!((bot.header("authorization"), &bot.json()["room"]), ("Bearer hunter2", &json!("운영")));
    assert_eq!(bot.json()["deliveryId"], bot.header("belayd-delivery-id"));
    assert!(
        bot.json()["text"].as_str().is_some_and(|text| text.starts_with("CRITICAL: overheat on engine-_1_ is firing.")),
        "{}",
        bot.body
    );
    let hook = receiver.wait_for("/hook", 1).remove(0);
    assert_eq!(hook.json()["name"], "overheat");
    assert_eq!(hook.header("webhook-id"), hook.header("belayd-delivery-id"));
    assert_eq!(hook.header("webhook-signature"), python_says(&hook), "{hook:#?}");
    let other = Request { body: hook.body.replace("overheat", "overcool"), ..hook.clone() };
    assert_ne!(hook.header("webhook-signature"), python_says(&other));
    for secret in ["hunter2", SECRET] {
        assert!(!daemon.log().contains(secret) && !daemon.get("/admin/config").body.contains(secret), "{secret}");
    }
}

#[test]
fn a_test_reaches_every_way_and_the_list_says_how_they_are() {
    let receiver = Receiver::start(ok);
    let daemon = Setup::with(&everywhere(&receiver.url)).start();
    for sink in ["log", "slack", "discord", "hook", "bot"] {
        assert_eq!(test_send(&daemon, sink, r#"{"reason":"x"}"#)["state"], "sent", "{sink}");
    }
    assert_eq!(test_send(&daemon, "bot", r#"{"reason":"x","to":"night shift"}"#)["state"], "sent");
    assert_eq!(receiver.came("/bot")[1].json()["room"], "night shift");
    assert!(receiver.came("/slack")[0].body.contains("belayd에서 보낸 시험 메시지입니다."));
    let list = daemon.get("/admin/sinks").json();
    let names: Vec<_> =
        list["items"].as_array().into_iter().flatten().map(|sink| format!("{}/{}", sink["name"], sink["kind"])).collect();
    assert_eq!(names.join(" ").replace('"', ""), "log/log slack/slack discord/discord hook/webhook bot/bot");
    assert!(
        list["items"].as_array().into_iter().flatten().all(|sink| sink["circuit"] == "closed" && sink["concurrency"] == 4),
        "{list:#}"
    );
    let viewer = format!("Bearer {}", daemon.create_token("looker", "viewer"));
    let headers = [("Authorization", viewer.as_str()), ("Content-Type", "application/json")];
    assert_eq!(daemon.raw("POST", "/admin/sinks/log/test", &headers, br#"{"reason":"x"}"#).status, 403);
}

#[test]
fn a_bot_gets_the_images_of_a_message_and_its_other_files_apart() {
    let receiver = Receiver::start(ok);
    let daemon = Setup::with(&everywhere(&receiver.url)).start();
    let (png, text) = ("iVBORw0KGgo=", "aGVsbG8=");
    let message = json!({
        "via": "bot", "to": ["정비"], "subject": "s", "body": "b",
        "attachments": [
            {"name": "추세.png", "contentType": "image/png", "content": png},
            {"name": "log.txt", "contentType": "text/plain", "content": text},
        ],
    });
    let made = daemon.post("/api/messages", &message.to_string());
    assert_eq!(made.status, 202, "{made:?}");
    let got = receiver.wait_for("/bot", 1)[0].json();
    assert_eq!(got["room"], "정비", "{got:#}");
    assert_eq!(got["images"], json!([{"name": "추세.png", "contentType": "image/png", "base64": png}]), "{got:#}");
    assert!(got.to_string().contains("log.txt") && got.to_string().contains(text), "{got:#}");
}

/// Says no in every way before it says yes; 408 is among what comes again.
fn hard_to_please(before: usize, path: &str) -> Reply {
    match (before, path) {
        (0, _) => Reply::Say("429 Too Many Requests", "Retry-After: 1\r\n", "slow down"),
        (1, _) => Reply::Say("500 Internal Server Error", "", "<html>oops"),
        (2, _) => Reply::Say("408 Request Timeout", "", ""),
        (3, _) => Reply::Cut,
        (4, _) => Reply::Hang,
        _ => ok(before, path),
    }
}

#[test]
fn a_receiver_that_fails_in_every_way_gets_it_in_the_end_and_is_told_what_may_be_a_repeat() {
    let receiver = Receiver::start(hard_to_please);
    let url = &receiver.url;
    let config = format!(
        "{QUICK}[slack]\nurl = \"{url}/slack\"\ntimeout = \"500ms\"\nbreaker_failures = 100\n[discord]\nurl = \"{url}/discord\"\n\
         timeout = \"500ms\"\nbreaker_failures = 100\n[[webhooks]]\nname = \"hook\"\nurl = \"{url}/hook\"\n\
         timeout = \"500ms\"\nbreaker_failures = 100\n[[bots]]\nname = \"bot\"\nurl = \"{url}/bot\"\ntimeout = \"500ms\"\nbreaker_failures = 100\n"
    );
    let daemon = Setup::with(&config).start();
    overheat(&daemon, "engine-1");
    receiver.wait_for("/slack", 6);
    receiver.wait_for("/discord?wait=true", 6);
    receiver.wait_for("/bot", 6);
    let hook = receiver.wait_for("/hook", 6);
    let id = hook[0].header("belayd-delivery-id").to_owned();
    assert!(hook.iter().all(|request| request.header("idempotency-key") == id), "one id in each attempt");
    let marks: Vec<_> = hook.iter().map(|request| request.header("belayd-possible-repeat")).collect();
    assert_eq!(marks, ["", "", "", "", "true", "true"], "from the first cut on");
    assert_eq!(ended(&daemon, &id)["state"], "sent");
    assert_eq!(daemon.metric("belayd_send_failures_total{sink=\"hook\",type=\"status_429\"}"), 1.0);
}

#[test]
fn what_will_never_be_taken_waits_for_a_person_at_once() {
    let receiver = Receiver::start(|_, path| match path {
        "/moved" => Reply::Say("302 Found", "Location: /hook\r\n", ""),
        "/gone" => Reply::Say("410 Gone", "", ""),
        "/slack" => Reply::Say("404 Not Found", "", "no_service"),
        "/page" => Reply::Say("200 OK", "", "<html>please sign in"),
        _ => Reply::Say("401 Unauthorized", "", "bad token"),
    });
    let hook = |name: &str| format!("[[webhooks]]\nname = \"{name}\"\nurl = \"{}/{name}\"\n", receiver.url);
    let start = |slack: &str, more: &str| -> Daemon {
        Setup::with(&format!("{QUICK}[slack]\nurl = \"{}/{slack}\"\n{more}", receiver.url)).start()
    };
    let bot = format!("[[bots]]\nname = \"bot\"\nurl = \"{}/bot\"\n", receiver.url);
    let daemon = start("slack", &format!("{}{}{bot}", hook("moved"), hook("gone")));
    for (sink, error_type, words) in [
        ("moved", "redirect", "HTTP 302"),
        ("gone", "status_4xx", "HTTP 410"),
        ("slack", "denied", "HTTP 404 no_service"),
        ("bot", "denied", "HTTP 401 bad token"),
    ] {
        let delivery = test_send(&daemon, sink, r#"{"reason":"x"}"#);
        assert_eq!((&delivery["state"], &delivery["errorCode"]), (&json!("dead"), &json!(error_type)), "{delivery:#}");
        assert!(delivery["message"].as_str().is_some_and(|message| message.contains(words)), "{delivery:#}");
        assert_eq!(failures(&daemon, sink, 1).len(), 1);
    }
    assert_eq!(receiver.came("/hook").len(), 0, "no redirect is followed");
    let delivery = test_send(&start("page", ""), "slack", r#"{"reason":"x"}"#);
    assert_eq!((&delivery["state"], &delivery["errorCode"]), (&json!("dead"), &json!("not_slack")), "{delivery:#}");
}

#[test]
fn what_is_for_a_sink_that_is_set_up_wrongly_waits_until_that_is_mended_and_loses_no_attempt() {
    // A token that is not valid for a while.
    let receiver =
        Receiver::start(|before, path| if before < 12 { Reply::Say("401 Unauthorized", "", "expired") } else { ok(before, path) });
    let bot = format!(
        "[[bots]]\nname = \"bot\"\nurl = \"{}/bot\"\nbreaker_pause = \"20ms\"\nbreaker_pause_max = \"100ms\"\n\
         [[routes]]\nsinks = [\"bot\"]\nkinds = [\"rule\"]\n[outbox]\nmax_attempts = 2\nretry_base = \"20ms\"\n",
        receiver.url
    );
    let daemon = Setup::with(&bot).start();
    (0..3).for_each(|n| overheat(&daemon, &format!("engine-{n}")));
    let came = receiver.wait_for("/bot", 15);
    let ids: std::collections::HashSet<&str> = came.iter().skip(12).map(|request| request.header("belayd-delivery-id")).collect();
    assert_eq!(ids.len(), 3, "each of them, once it is taken");
    for id in ids {
        let delivery = ended(&daemon, id);
        assert_eq!((&delivery["state"], &delivery["attempts"]), (&json!("sent"), &json!(1)), "{delivery:#}");
    }
    assert!(failures(&daemon, "bot", 0).is_empty(), "none was given up");
}
