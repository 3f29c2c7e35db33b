//! The mail sink against servers that follow a script, word for word.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    config::{SinkSettings, SmtpTls, TemplatesConfig},
    sinks::{Attachment, doubles},
};

/// What a server does at one point.
#[derive(Clone, Copy)]
enum Act {
    Say(&'static str),
    Cut,
    Hang,
}

use Act::{Cut, Hang, Say};

/// A server that does the same on each connection.
#[derive(Default)]
struct Script {
    /// By the first word of a command; `GREETING` and `BODY` beside them. What is not here is taken.
    acts: HashMap<&'static str, Act>,
    /// Whether connections are hung up behind their first mail.
    hangs_up: bool,
}

/// What came: one list of lines for each connection.
type Heard = Arc<Mutex<Vec<Vec<String>>>>;

async fn serve(script: Script) -> (u16, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let heard = Heard::default();
    let (script, shared) = (Arc::new(script), heard.clone());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let number = {
                let mut heard = shared.lock().expect("no panic");
                heard.push(Vec::new());
                heard.len() - 1
            };
            tokio::spawn(converse(socket, script.clone(), shared.clone(), number));
        }
    });
    (port, heard)
}

async fn converse(socket: TcpStream, script: Arc<Script>, heard: Heard, number: usize) {
    let mut socket = BufReader::new(socket);
    let act = |word: &str, usual| script.acts.get(word).copied().unwrap_or(Say(usual));
    let mut line = String::new();
    let mut next = act("GREETING", "220 script");
    loop {
        match next {
            Say(text) => {
                if socket.write_all(format!("{text}\r\n").as_bytes()).await.is_err() {
                    return;
                }
                if text.starts_with("354") {
                    let mut body = String::new();
                    let done = act("BODY", "250 2.0.0 queued as 42");
                    loop {
                        line.clear();
                        if socket.read_line(&mut line).await.unwrap_or(0) == 0 {
                            return;
                        }
                        if line == ".\r\n" {
                            break;
                        }
                        body.push_str(&line);
                    }
                    heard.lock().expect("no panic")[number].push(body);
                    next = done;
                    if script.hangs_up && matches!(done, Say(_)) {
                        let Say(text) = done else { return };
                        let _ = socket.write_all(format!("{text}\r\n").as_bytes()).await;
                        return;
                    }
                    continue;
                }
            }
            Cut => return,
            Hang => return tokio::time::sleep(Duration::from_secs(60)).await,
        }
        line.clear();
        if socket.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let command = line.trim_end().to_owned();
        heard.lock().expect("no panic")[number].push(command.clone());
        let word = command.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let usual = match word.as_str() {
            "EHLO" => "250-script\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME",
            "AUTH" => "235 welcome",
            "DATA" => "354 go on",
            "QUIT" => "221 bye",
            _ => "250 2.1.0 fine",
        };
        next = act(&word, usual);
    }
}

fn config(port: u16) -> SmtpConfig {
    SmtpConfig {
        host: "127.0.0.1".into(),
        port,
        tls: SmtpTls::None,
        ca: None,
        username: None,
        password: None,
        from: "belayd 알림 <belayd@example.org>".into(),
        reply_to: Some("ops@example.org".into()),
        to: None,
        hello: Some("belayd.example.org".into()),
        timeout: Duration::from_millis(700),
        settings: SinkSettings::DEFAULT,
    }
}

fn sink_of(config: &SmtpConfig) -> SmtpSink {
    let texts = TemplatesConfig { lang: "en".into(), dir: None, files: Default::default() };
    SmtpSink::new(config, 2, Arc::new(Templates::in_force(&texts)))
}

fn letter() -> Letter {
    let mut letter = doubles::letter(
        r#"{"message":{"id":"m","subject":"온도 경보 — hot","body":"첫 줄\n.\nMAIL FROM:<x@y>\nlast","replyTo":"lee@example.org"}}"#,
    );
    letter.recipient = "kim@example.org".into();
    letter
}

async fn verdict(acts: &[(&'static str, Act)]) -> (ErrorClass, &'static str, String) {
    let (port, _) = serve(Script { acts: acts.iter().copied().collect(), ..Script::default() }).await;
    let mut config = config(port);
    if acts.iter().any(|(word, _)| *word == "AUTH") {
        (config.username, config.password) = (Some("belayd".into()), Some("hunter2".into()));
    }
    let error = sink_of(&config).send(&letter()).await.expect_err("refused");
    assert!(!error.message.contains("hunter2") && !error.message.contains("kim@"), "{error}");
    (error.class, error.error_type, error.message)
}

#[tokio::test]
async fn a_mail_is_whole_and_says_where_it_is_from() {
    let (port, heard) = serve(Script::default()).await;
    let sent = sink_of(&config(port)).send(&letter()).await.expect("sent");
    assert_eq!(sent.answer, "250 2.0.0 queued as 42");
    let heard = heard.lock().expect("no panic");
    assert_eq!(heard[0][..4], ["EHLO belayd.example.org", "MAIL FROM:<belayd@example.org>", "RCPT TO:<kim@example.org>", "DATA"]);
    let mail = &heard[0][4];
    for line in [
        "Message-ID: <0198c1a2-0000-7000-8000-000000000001@example.org>",
        "Auto-Submitted: auto-generated",
        "Belayd-Delivery-Id: 0198c1a2-0000-7000-8000-000000000001",
        "Belayd-Possible-Repeat: true",
        "To: kim@example.org",
        "Reply-To: lee@example.org",
    ] {
        assert!(mail.lines().any(|found| found == line), "{line} in {mail}");
    }
    assert!(mail.contains("multipart/alternative") && mail.contains("text/html") && mail.is_ascii(), "{mail}");
    assert_eq!(mail.lines().filter(|line| line.starts_with("Subject:")).count(), 1);
}

#[tokio::test]
async fn every_word_of_the_server_has_its_verdict() {
    let again = ErrorClass::Retry { after: None };
    for (word, answer, class, error_type) in [
        ("GREETING", "421 busy", again, "connect"),
        ("GREETING", "554 go away", ErrorClass::Fatal, "connect"),
        ("AUTH", "454 later", again, "auth"),
        ("AUTH", "535 5.7.8 wrong", ErrorClass::Fatal, "auth"),
        ("MAIL", "451 4.7.1 later", again, "smtp_4xx"),
        ("MAIL", "550 not you", ErrorClass::Fatal, "sender"),
        ("MAIL", "530 sign in first", ErrorClass::Fatal, "auth"),
        ("MAIL", "552 too large", ErrorClass::Reject, "smtp_5xx"),
        ("RCPT", "450 4.2.0 greylisted, kim@example.org", again, "smtp_4xx"),
        ("RCPT", "550 5.1.1 <kim@example.org> unknown", ErrorClass::Reject, "smtp_5xx"),
        ("DATA", "451 later", again, "smtp_4xx"),
        ("DATA", "554 no", ErrorClass::Reject, "smtp_5xx"),
        ("DATA", "250 what", again, "protocol"),
        ("BODY", "452 disk full", again, "smtp_4xx"),
        ("BODY", "554 5.7.1 spam", ErrorClass::Reject, "smtp_5xx"),
    ] {
        let (got_class, got_type, message) = verdict(&[(word, Say(answer))]).await;
        assert_eq!((got_class, got_type), (class, error_type), "{word} {answer}: {message}");
    }
}

#[tokio::test]
async fn only_what_the_server_had_whole_is_unknown() {
    let again = ErrorClass::Retry { after: None };
    for word in ["GREETING", "EHLO", "MAIL", "RCPT", "DATA"] {
        let (class, _, message) = verdict(&[(word, Cut)]).await;
        assert_eq!(class, again, "cut at {word}: {message}");
    }
    for word in ["GREETING", "EHLO", "MAIL", "RCPT", "DATA"] {
        let (class, _, message) = verdict(&[(word, Hang)]).await;
        assert_eq!(class, again, "silent at {word}: {message}");
    }
    for (act, error_type) in [(Cut, "broken"), (Hang, "timeout"), (Say("nonsense"), "broken")] {
        let (class, kind, message) = verdict(&[("BODY", act)]).await;
        assert_eq!((class, kind), (ErrorClass::Unknown, error_type), "{message}");
    }
}

#[tokio::test]
async fn a_server_that_stops_or_hangs_up_in_the_middle_of_a_mail_has_not_taken_it() {
    for (stays, error_type) in [(true, "timeout"), (false, "broken")] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let (done, ended) = std::sync::mpsc::channel::<()>();
        let server = std::thread::spawn(move || {
            use std::io::{BufRead, Write};
            let (socket, _) = listener.accept().expect("a connection");
            let (mut reader, mut writer) = (std::io::BufReader::new(&socket), &socket);
            writer.write_all(b"220 x\r\n").expect("writes");
            let mut line = String::new();
            while line != "DATA\r\n" {
                line.clear();
                reader.read_line(&mut line).expect("reads");
                let answer: &[u8] = if line == "DATA\r\n" { b"354 go\r\n" } else { b"250 fine\r\n" };
                writer.write_all(answer).expect("writes");
            }
            reader.read_line(&mut line).expect("reads");
            if stays {
                // Reads no more, and keeps the connection until the sender has given up.
                let _ = ended.recv();
            }
        });
        let mut large = letter();
        let content = vec![7; 16 << 20].into();
        large.attachments = vec![Attachment { name: "a.bin".into(), content_type: "application/x-a".into(), content }];
        let error = sink_of(&config(port)).send(&large).await.expect_err("stuck");
        assert_eq!((error.class, error.error_type), (ErrorClass::Retry { after: None }, error_type), "{error}");
        drop(done);
        server.join().expect("no panic");
    }
}

#[tokio::test]
async fn a_refused_connection_is_as_good_as_not_tried() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
    let error = sink_of(&config(port)).send(&letter()).await.expect_err("nobody listens");
    assert_eq!((error.class, error.error_type), (ErrorClass::Retry { after: None }, "connect"));
}

#[tokio::test]
async fn a_connection_serves_the_next_mail_and_one_that_was_hung_up_costs_none() {
    let (port, heard) = serve(Script::default()).await;
    let sink = sink_of(&config(port));
    for _ in 0..3 {
        sink.send(&letter()).await.expect("sent");
    }
    assert_eq!(heard.lock().expect("no panic").len(), 1, "one connection for three mails");

    let (port, heard) = serve(Script { hangs_up: true, ..Script::default() }).await;
    let sink = sink_of(&config(port));
    for _ in 0..3 {
        sink.send(&letter()).await.expect("sent");
    }
    let heard = heard.lock().expect("no panic");
    let mails = heard.iter().flatten().filter(|line| line.contains("Message-ID")).count();
    assert_eq!((heard.len(), mails), (3, 3), "a connection each, and no mail twice");
}

#[tokio::test]
async fn a_connection_is_used_on_after_a_refusal() {
    let script = Script { acts: HashMap::from([("RCPT", Say("550 no"))]), hangs_up: false };
    let (port, heard) = serve(script).await;
    let sink = sink_of(&config(port));
    for _ in 0..2 {
        sink.send(&letter()).await.expect_err("refused");
    }
    let heard = heard.lock().expect("no panic");
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].iter().filter(|line| *line == "RSET").count(), 2);
}

#[tokio::test]
async fn headers_hold_no_line_that_somebody_smuggled_in() {
    let (port, heard) = serve(Script::default()).await;
    let sink = sink_of(&config(port));
    let evil = r#"{"message":{"id":"m","subject":"hello\r\nBcc: evil@example.org\r\n\r\n<b>body</b>","body":"x\r\n.\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<evil@example.org>\r\n\r.\r x \n.\n"}}"#;
    let mut letter = doubles::letter(evil);
    letter.recipient = "kim@example.org".into();
    letter.attachments = vec![Attachment {
        name: "../../e\r\nX-Evil: 1\r\n.txt\"; name=\"b".into(),
        content_type: "text/plain\r\nX-Evil: 2".into(),
        content: b"\r\n.\r\nQUIT\r\n"[..].into(),
    }];
    sink.send(&letter).await.expect("sent");
    let heard = heard.lock().expect("no panic").clone();
    assert_eq!(heard[0].len(), 5, "no command beside those of one mail: {:?}", heard[0]);
    let mail = &heard[0][4];
    let head = mail.split("\r\n\r\n").next().expect("a head");
    assert!(!head.lines().any(|line| line.starts_with("Bcc") || line.starts_with("X-Evil")), "{head}");
    assert!(!mail.lines().any(|line| line.starts_with("X-Evil")), "{mail}");
    for bad in ["kim@example.org\r\nBcc: evil@example.org", "kim@example.org> SIZE=1", "a@b, c@d", "", "kim"] {
        letter.recipient = bad.into();
        let error = sink.send(&letter).await.expect_err("no address");
        assert_eq!((error.class, error.error_type), (ErrorClass::Reject, "recipient"), "{bad:?}");
        assert!(!error.message.contains("evil"), "{error}");
    }
}

#[tokio::test]
async fn no_file_can_end_a_mail_and_begin_another() {
    let (port, heard) = serve(Script::default()).await;
    let forged = "a\n.\r\nMAIL FROM:<boss@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nSubject: pay\r\n\r\nnow\r\n.\r\n";
    let contents = [forged, "one\ntwo\n", "one\rtwo\r", "a\r.\r\n", "a\n.\n", "\r\n.\r\n", ""];
    let mut letter = letter();
    letter.attachments = contents
        .iter()
        .map(|text| Attachment { name: "a.txt".into(), content_type: "text/plain".into(), content: text.as_bytes().into() })
        .collect();
    sink_of(&config(port)).send(&letter).await.expect("sent");
    let heard = heard.lock().expect("no panic").clone();
    assert_eq!((heard.len(), heard[0].len()), (1, 5), "one mail and no command beside it: {:?}", heard[0]);
    let mail = &heard[0][4];
    assert!(!mail.replace("\r\n", "").contains(['\r', '\n']), "every line ends in both: {mail:?}");
    for text in contents {
        let packed = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, text);
        assert!(mail.replace("\r\n", "").contains(&packed), "{text:?} is there byte for byte: {mail}");
    }
}

#[tokio::test]
async fn a_connection_with_an_answer_that_nobody_asked_for_carries_no_other_mail() {
    for (word, more) in
        [("BODY", "250 queued as 1\r\n250 queued as 2"), ("RCPT", "550 no\r\n250 fine"), ("RSET", "250 fine\r\n250 fine")]
    {
        let mut acts = HashMap::from([(word, Say(more))]);
        if word == "RSET" {
            acts.insert("RCPT", Say("550 no"));
        }
        let (port, heard) = serve(Script { acts, ..Script::default() }).await;
        let sink = sink_of(&config(port));
        for _ in 0..2 {
            let sent = sink.send(&letter()).await;
            assert_eq!(sent.map_err(|error| error.class).err(), (word != "BODY").then_some(ErrorClass::Reject), "{word}");
        }
        let heard = heard.lock().expect("no panic");
        assert_eq!(heard.len(), 2, "a connection each behind {word}: {heard:?}");
    }
    // Within one mail: the second answer would be taken for that of the next command, and a refused recipient would count as sent.
    let (class, error_type, message) = verdict(&[("MAIL", Say("250 fine\r\n250 fine"))]).await;
    assert_eq!((class, error_type), (ErrorClass::Retry { after: None }, "broken"), "{message}");
}

#[tokio::test]
async fn what_names_nobody_goes_where_the_configuration_says() {
    let (port, heard) = serve(Script::default()).await;
    let sink = sink_of(&SmtpConfig { to: Some("Ops <ops@example.org>".into()), ..config(port) });
    sink.send(&doubles::letter(r#"{"event":"firing","title":"t","name":"n","subject":"s","id":"a1","text":"x"}"#))
        .await
        .expect("sent");
    let heard = heard.lock().expect("no panic");
    assert!(heard[0].contains(&"RCPT TO:<ops@example.org>".to_owned()));
    assert!(heard[0][4].contains("References: <alert-a1@example.org>"), "{}", heard[0][4]);
}

#[tokio::test]
async fn nothing_is_said_in_the_clear_where_tls_is_wanted() {
    let no_tls = Script { acts: HashMap::from([("EHLO", Say("250-script\r\n250 AUTH PLAIN"))]), ..Script::default() };
    let stuffed = Script {
        acts: HashMap::from([
            ("EHLO", Say("250-script\r\n250 STARTTLS")),
            ("STARTTLS", Say("220 go on\r\n250-evil\r\n250 AUTH PLAIN")),
        ]),
        ..Script::default()
    };
    for (script, class, error_type) in
        [(no_tls, ErrorClass::Fatal, "tls"), (stuffed, ErrorClass::Retry { after: None }, "protocol")]
    {
        let (port, heard) = serve(script).await;
        let config = SmtpConfig { tls: SmtpTls::Starttls, username: Some("u".into()), password: Some("p".into()), ..config(port) };
        let error = sink_of(&config).send(&letter()).await.expect_err("refused");
        assert_eq!((error.class, error.error_type), (class, error_type), "{error}");
        let said = heard.lock().expect("no panic").concat();
        assert!(said.iter().all(|line| line.starts_with("EHLO") || line == "STARTTLS"), "{said:?}");
    }
}
