//! Texts of a user's own: checked before anything starts, read again at SIGHUP.

use std::{fs, time::Duration};

use super::{QUICK, overheat};
use crate::support::{
    daemon::{Daemon, Setup},
    web_receiver::{Receiver, Reply},
};

fn laid_out(receiver: &Receiver, lang: &str) -> Daemon {
    let config = format!("{QUICK}[slack]\nurl = \"{}/slack\"\n[templates]\nlang = \"{lang}\"\ndir = \"texts\"\n", receiver.url);
    let daemon = Setup::with(&config).bare();
    fs::create_dir(daemon.dir().join("texts")).expect("a folder");
    daemon
}

fn headline(receiver: &Receiver, count: usize) -> String {
    let came = receiver.wait_for("/slack", count);
    came[count - 1].json()["blocks"][0]["text"]["text"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_users_text_is_taken_and_a_changed_one_at_sighup_and_a_broken_one_never() {
    let receiver = Receiver::start(|_, _| Reply::Say("200 OK", "", "ok"));
    let mut daemon = laid_out(&receiver, "ko");
    let text = daemon.dir().join("texts/alert.subject.jinja");
    fs::write(&text, "one {{ subject }}").expect("a file");
    daemon.token = daemon.create_token("test", "admin");
    daemon.start_again();
    overheat(&daemon, "engine-1");
    assert_eq!(headline(&receiver, 1), "one engine-1");
    let reload = |daemon: &Daemon, text_of: &str, told: &str, times: usize| {
        fs::write(&text, text_of).expect("a file");
        daemon.signal(libc::SIGHUP);
        daemon.wait_for(told, Duration::from_secs(30), |daemon| daemon.log().matches(told).count() >= times);
    };
    reload(&daemon, "two {{ subject }}", "configuration reloaded", 1);
    overheat(&daemon, "engine-2");
    assert_eq!(headline(&receiver, 2), "two engine-2");
    reload(&daemon, "\nthree {{ subjekt }}", "configuration refused", 1);
    assert!(daemon.log().contains("alert.subject.jinja:2:1: undefined value"), "{}", daemon.log());
    overheat(&daemon, "engine-3");
    assert_eq!(headline(&receiver, 3), "two engine-3");
    fs::remove_file(&text).expect("a file");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for("reloaded", Duration::from_secs(30), |daemon| daemon.log().matches("configuration reloaded").count() >= 2);
    overheat(&daemon, "engine-4");
    assert_eq!(headline(&receiver, 4), "[심각] overheat engine-4 발생");
}

#[test]
fn check_shows_a_sample_of_each_text_and_a_broken_one_is_a_fault_of_the_configuration() {
    let receiver = Receiver::start(|_, _| Reply::Say("200 OK", "", "ok"));
    let daemon = laid_out(&receiver, "en");
    let texts = daemon.dir().join("texts");
    fs::write(texts.join("digest.text.jinja"), "{{ count }} of my own").expect("a file");
    fs::write(texts.join(".digest.text.jinja.swp"), "an editor's").expect("a file");
    fs::write(texts.join("README"), "no template").expect("a file");
    let check = daemon.command(&["check"]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success(), "{check:?}");
    assert!(said.contains("    digest.text (digest.text.jinja)\n      52 of my own\n"), "{said}");
    for event in ["firing", "escalated", "repeat", "resolved", "digest", "message"] {
        assert!(said.contains(&format!("    {event}.subject (built in)")), "{event} in {said}");
        assert!(!said.contains(&format!("    {event}.html (")), "of what is built in the subjects are enough: {said}");
    }
    let all = daemon.command(&["check", "--verbose"]);
    let all = String::from_utf8_lossy(&all.stdout).into_owned();
    for event in ["firing", "escalated", "repeat", "resolved", "digest", "message"] {
        for part in ["subject", "text", "html", "slack", "discord"] {
            let source = if (event, part) == ("digest", "text") { "digest.text.jinja" } else { "built in" };
            let sample = all.split_once(&format!("    {event}.{part} ({source})\n      ")).map(|(_, sample)| sample);
            assert!(sample.is_some_and(|sample| sample.starts_with(|c: char| !c.is_whitespace())), "{event}.{part} in {all}");
        }
    }
    assert!(said.contains("    repeat.subject (built in)\n      [CRITICAL] overheat engine-1: still firing\n"), "{said}");
    fs::write(texts.join("alert.html.jinja"), "<p>\n{{ oops").expect("a file");
    for command in [&["check"][..], &["run"]] {
        let broken = daemon.command(command);
        let told = String::from_utf8_lossy(&broken.stderr).into_owned();
        assert_eq!(broken.status.code(), Some(78), "{told}");
        assert!(told.contains("texts/alert.html.jinja:2:1: syntax error"), "{told}");
    }
}
