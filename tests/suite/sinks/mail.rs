//! Mail to aiosmtpd, read back by Python's own parser.

use std::{fs, path::Path};

use super::{QUICK, ended, failures, overheat, test_send};
use crate::support::{
    daemon::{Daemon, Setup},
    mail::{MailServer, is_there},
};

fn smtp(port: u16, more: &str) -> String {
    format!("{QUICK}[smtp]\nhost = \"127.0.0.1\"\nport = {port}\nfrom = \"belayd 알림 <belayd@example.org>\"\n{more}\n")
}

fn texts(value: &serde_json::Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_test_mail_arrives_word_for_word_and_its_answer_is_kept() {
    if !is_there() {
        return;
    }
    let server = MailServer::start(&["none"]);
    let daemon = Setup::with(&smtp(server.port, "tls = \"none\"")).start();
    let delivery = test_send(&daemon, "smtp", r#"{"to":"홍길동 <kim@example.org>","reason":"new server"}"#);
    assert_eq!(delivery["state"], "sent", "{delivery:#}");
    let mail = server.wait_for_mails(1).remove(0);
    let id = texts(&delivery, "id");
    assert_eq!(mail["messageId"], format!("<{id}@example.org>"));
    assert_eq!((&mail["deliveryId"], &mail["autoSubmitted"]), (&id.as_str().into(), &"auto-generated".into()));
    assert_eq!(
        (texts(&mail, "subject").as_str(), mail["to"][0].as_str()),
        ("Test from belayd (시험 메시지)", Some("kim@example.org"))
    );
    assert_eq!(texts(&mail, "headerFrom"), "belayd 알림 <belayd@example.org>");
    assert_eq!(texts(&mail, "headerTo"), "홍길동 <kim@example.org>");
    for part in ["text", "html"] {
        assert!(texts(&mail, part).contains("belayd에서 보낸 시험 메시지입니다."), "{mail:#}");
    }
    assert_eq!(mail["defects"], serde_json::json!([]), "{mail:#}");
    let audit = daemon.get("/admin/audit").json();
    let row =
        audit["items"].as_array().into_iter().flatten().find(|row| row["action"] == "sink.test").cloned().expect("an audit row");
    assert_eq!((&row["subject"], &row["reason"]), (&"smtp".into(), &"new server".into()));
    assert!(!daemon.log().contains("kim@example.org"), "no address in the log");
}

#[test]
fn tests_are_asked_for_on_the_command_line_and_bad_ones_are_refused() {
    if !is_there() {
        return;
    }
    let server = MailServer::start(&["none"]);
    let daemon = Setup::with(&smtp(server.port, "tls = \"none\"")).start();
    let said = daemon.command(&["sinks", "test", "smtp", "--to", "lee@example.org", "--reason", "trial"]);
    assert!(said.status.success() && String::from_utf8_lossy(&said.stdout).starts_with("smtp took it ("), "{said:?}");
    let said = daemon.command(&["sinks", "test", "smtp", "--to", "nobody@example.org", "--reason", "trial"]);
    let told = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.status.code() == Some(1) && told.contains("550") && told.contains("did not take it"), "{said:?}");
    let listed = daemon.command(&["sinks", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("smtp                     smtp     closed"), "{listed:?}");
    let refused = |path: &str, body: &str| {
        let answer = daemon.post(path, body);
        (answer.status, answer.code())
    };
    assert_eq!(refused("/admin/sinks/smtp/test", r#"{"to":"a@b.c"}"#), (400, "reason_required".into()));
    assert_eq!(refused("/admin/sinks/smtp/test", r#"{"reason":"x"}"#), (400, "invalid_field".into()));
    for to in ["a@b.c, d@e.f", "a@b.c\\r\\nBcc: x@y.z", "kim", "a b@c.d", "<a@b.c", "\\u0000@b.c"] {
        let body = format!(r#"{{"reason":"x","to":"{to}"}}"#);
        assert_eq!(refused("/admin/sinks/smtp/test", &body), (400, "invalid_field".into()), "{to}");
    }
    assert_eq!(refused("/admin/sinks/log/test", r#"{"reason":"x","to":"a@b.c"}"#), (400, "invalid_field".into()));
    assert_eq!(refused("/admin/sinks/pager/test", r#"{"reason":"x"}"#), (404, "not_found".into()));
    assert_eq!(server.mails().len(), 1);
}

#[test]
fn of_a_message_to_several_each_gets_a_mail_with_its_files_and_one_that_is_refused_holds_up_nobody() {
    if !is_there() {
        return;
    }
    let server = MailServer::start(&["none"]);
    let daemon = Setup::with(&smtp(server.port, "tls = \"none\"")).start();
    let message = serde_json::json!({
        "via": "smtp", "to": ["kim@example.org", "nobody@example.org", "lee@example.org"], "subject": "점검", "body": "text",
        "attachments": [{"name": "보고.txt", "contentType": "text/plain", "content": "aGVsbG8="}],
    });
    let made = daemon.post("/api/messages", &message.to_string());
    assert_eq!((made.status, made.json()["deliveries"].as_array().map(Vec::len)), (202, Some(3)), "{made:?}");
    let path = format!("/api/messages/{}", made.json()["id"].as_str().expect("an id"));
    let state = |to: &str| {
        let shown = daemon.get(&path).json();
        let of = shown["deliveries"].as_array().into_iter().flatten().find(|one| one["recipient"] == to).cloned();
        of.unwrap_or_else(|| panic!("{to} is not in {shown:#}"))
    };
    daemon.wait_for("all have their end", std::time::Duration::from_secs(30), |_| {
        ["kim", "lee"].iter().all(|name| state(&format!("{name}@example.org"))["state"] == "sent")
            && state("nobody@example.org")["state"] == "dead"
    });
    assert!(state("nobody@example.org").to_string().contains("550"), "{}", state("nobody@example.org"));
    let mut mails = server.mails();
    mails.sort_by_key(|mail| mail["to"].to_string());
    let to: Vec<&str> = mails.iter().filter_map(|mail| mail["to"][0].as_str()).collect();
    assert_eq!(to, ["kim@example.org", "lee@example.org"]);
    for mail in &mails {
        // Read by Python's parser: the name as it was given, and the bytes by their SHA-256, that of "hello".
        let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(mail["attachments"], serde_json::json!([["보고.txt", hello]]), "{mail:#}");
        assert_eq!((texts(mail, "text").trim(), &mail["defects"]), ("text", &serde_json::json!([])));
        assert_eq!(mail["to"].as_array().map(Vec::len), Some(1), "nobody sees the others");
    }
}

/// A certificate for the loopback address, and its key.
fn certificate(dir: &Path) -> [String; 2] {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    fs::write(&cert, made.cert.pem()).expect("a file");
    fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    [cert, key].map(|path| path.display().to_string())
}

#[test]
fn every_way_of_tls_and_of_signing_in_works_and_nothing_else_is_sent() {
    if !is_there() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let [cert, key] = certificate(dir.path());
    fs::write(dir.path().join("password"), "open sesame\n").expect("a file");
    let password = dir.path().join("password").display().to_string();
    for tls in ["starttls", "tls"] {
        let server = MailServer::start(&[tls, &cert, &key, "belayd:open sesame"]);
        let sign_in = format!(
            "tls = \"{tls}\"\nca = \"{cert}\"\nusername = \"belayd\"\npassword_file = \"{password}\"\nto = \"kim@example.org\""
        );
        let daemon = Setup::with(&smtp(server.port, &sign_in)).start();
        let delivery = test_send(&daemon, "smtp", r#"{"reason":"x"}"#);
        assert_eq!(delivery["state"], "sent", "{tls}: {delivery:#}");
        let mail = server.wait_for_mails(1).remove(0);
        assert_eq!((&mail["tls"], &mail["user"]), (&true.into(), &"belayd".into()), "{tls}: {mail:#}");
        let check = daemon.command(&["check", "--connect"]);
        let said = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(check.status.success() && said.contains("smtp: OK") && said.contains("over TLS, signed in"), "{said}");

        let stranger = Setup::with(&smtp(server.port, &sign_in.replace(&format!("ca = \"{cert}\"\n"), ""))).start();
        let delivery = test_send(&stranger, "smtp", r#"{"reason":"x"}"#);
        assert_eq!((&delivery["state"], &delivery["errorCode"]), (&"dead".into(), &"tls".into()), "{delivery:#}");

        let wrong = sign_in.replace(&format!("password_file = \"{password}\""), "password = \"hunter2\"");
        let wrong = Setup::with(&smtp(server.port, &wrong)).start();
        let delivery = test_send(&wrong, "smtp", r#"{"reason":"x"}"#);
        assert_eq!((&delivery["state"], &delivery["errorCode"]), (&"dead".into(), &"auth".into()), "{delivery:#}");
        assert!(texts(&delivery, "message").contains("535"), "{delivery:#}");
        assert!(!wrong.log().contains("hunter2") && !wrong.get("/admin/config").body.contains("hunter2"));
        assert_eq!(server.mails().len(), 1, "{tls}: nothing but the first");
    }
}

#[test]
fn a_server_that_offers_no_tls_gets_nothing() {
    if !is_there() {
        return;
    }
    let server = MailServer::start(&["none"]);
    let daemon = Setup::with(&smtp(server.port, "to = \"kim@example.org\"")).start();
    let delivery = test_send(&daemon, "smtp", r#"{"reason":"x"}"#);
    assert_eq!((&delivery["state"], &delivery["errorCode"]), (&"dead".into(), &"tls".into()), "{delivery:#}");
    assert_eq!(server.mails().len(), 0);
}

fn alerting(server: &MailServer, to: &str, on_unknown: &str) -> Daemon {
    let more =
        format!("tls = \"none\"\nto = \"{to}\"\n[[routes]]\nkind = \"rule\"\nsinks = [\"smtp\"]\non_unknown = \"{on_unknown}\"");
    Setup::with(&smtp(server.port, &more)).start()
}

#[test]
fn an_alert_that_is_put_off_comes_again_under_the_same_message_id() {
    if !is_there() {
        return;
    }
    let server = MailServer::start(&["none"]);
    let daemon = alerting(&server, "grey@example.org", "resend");
    overheat(&daemon, "engine-1");
    let mail = server.wait_for_mails(1).remove(0);
    assert_eq!(server.said().iter().filter(|line| line["refused"] == "grey@example.org").count(), 1);
    assert_eq!(texts(&mail, "messageId"), format!("<{}@example.org>", texts(&mail, "deliveryId")));
    assert_eq!(
        (texts(&mail, "subject").as_str(), &mail["repeat"]),
        ("[CRITICAL] overheat engine-1: firing", &serde_json::Value::Null)
    );
    let delivery = ended(&daemon, &texts(&mail, "deliveryId"));
    assert_eq!((&delivery["state"], &delivery["attempts"]), (&"sent".into(), &2.into()), "{delivery:#}");
    assert_eq!(daemon.metric("belayd_send_failures_total{sink=\"smtp\",type=\"smtp_4xx\"}"), 1.0);
}

#[test]
fn an_alert_whose_recipient_is_refused_waits_for_a_person_with_the_servers_words() {
    if !is_there() {
        return;
    }
    let server = MailServer::start(&["none"]);
    let daemon = alerting(&server, "nobody@example.org", "resend");
    overheat(&daemon, "engine-1");
    let failure = failures(&daemon, "smtp", 1).remove(0);
    assert_eq!(
        (&failure["cause"], &failure["errorCode"], &failure["attempts"]),
        (&"dead".into(), &"smtp_5xx".into(), &1.into()),
        "{failure:#}"
    );
    assert!(
        texts(&failure, "message").contains("550 5.1.1") && texts(&failure, "message").contains("the recipient"),
        "{failure:#}"
    );
}

#[test]
fn a_mail_whose_answer_never_came_is_left_to_a_person_or_repeated_with_its_mark_as_the_route_says() {
    if !is_there() {
        return;
    }
    let server = MailServer::start(&["none"]);
    let daemon = alerting(&server, "cut@example.org", "review");
    overheat(&daemon, "engine-1");
    let failure = failures(&daemon, "smtp", 1).remove(0);
    assert_eq!((&failure["cause"], &failure["attempts"]), (&"uncertain".into(), &1.into()), "{failure:#}");
    // What comes later passes it by.
    overheat(&daemon, "engine-2");
    let ids: Vec<_> = server.wait_for_mails(2).iter().map(|mail| texts(mail, "messageId")).collect();
    assert!(ids.len() == 2 && ids[0] != ids[1], "nothing goes out again by itself: {ids:?}");

    let server = MailServer::start(&["none"]);
    let daemon = alerting(&server, "cut@example.org", "resend");
    overheat(&daemon, "engine-1");
    let mails = server.wait_for_mails(2);
    assert_eq!(mails[0]["messageId"], mails[1]["messageId"]);
    assert_eq!((&mails[0]["repeat"], &mails[1]["repeat"]), (&serde_json::Value::Null, &"true".into()));
    assert!(texts(&mails[1], "text").contains("This may have reached you before."), "{:#}", mails[1]);
    assert_eq!(ended(&daemon, &texts(&mails[1], "deliveryId"))["state"], "sent");
}

#[test]
fn an_alert_by_mail_has_each_header_once() {
    if !is_there() {
        return;
    }
    let server = MailServer::start(&["none"]);
    let daemon = alerting(&server, "kim@example.org", "resend");
    overheat(&daemon, "e:1.a-b_c");
    let mail = server.wait_for_mails(1).remove(0);
    let names: Vec<_> = mail["names"].as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
    for name in ["subject", "from", "to", "message-id", "date"] {
        assert_eq!(names.iter().filter(|known| **known == name).count(), 1, "{name} in {names:?}");
    }
    assert!(!names.contains(&"bcc"), "{names:?}");
    assert!(texts(&mail, "html").contains("e:1.a-b_c") && texts(&mail, "html").contains("400"), "{mail:#}");
}
