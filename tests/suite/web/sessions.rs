//! Signing in and out, cookies, and writes from other sites.

use crate::support::daemon::{Answer, Daemon, Setup};

fn sign_in(daemon: &Daemon, token: &str) -> Answer {
    let origin = format!("http://{}", daemon.address);
    let headers = [("Origin", origin.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
    daemon.raw("POST", "/login", &headers, format!("token={token}").as_bytes())
}

fn cookie(answer: &Answer, daemon: &Daemon) -> String {
    let line = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    for attribute in ["httponly", "samesite=strict", "path=/", "max-age="] {
        assert!(line.contains(attribute), "{line}");
    }
    assert!(!line.contains(&daemon.token.to_ascii_lowercase()), "the cookie is not the token");
    line.split(';').next().expect("a pair").to_owned()
}

/// The head is kept in lower case; a cookie's text is not, so it is asked for again from the raw answer.
fn session(daemon: &Daemon, token: &str) -> String {
    use std::io::{Read, Write};
    let body = format!("token={token}");
    let request = format!(
        "POST /login HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}\r\nConnection: close\r\nContent-Length: {1}\r\n\r\n{body}",
        daemon.address,
        body.len()
    );
    let mut socket = std::net::TcpStream::connect(&daemon.address).expect("it listens");
    socket.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("an answer");
    let start = answer.find("belayd_session=").expect("a cookie");
    answer[start..].split(';').next().expect("a pair").to_owned()
}

#[test]
fn a_session_looks_writes_from_its_own_site_and_ends_with_logout_or_its_token() {
    let daemon = Setup::default().start();
    let answer = sign_in(&daemon, &daemon.token);
    assert_eq!(answer.status, 303, "{answer:?}");
    cookie(&answer, &daemon);
    let cookie = session(&daemon, &daemon.token);
    let with = |method: &str, path: &str, more: &[(&str, &str)], body: &[u8]| {
        let mut headers = vec![("Cookie", cookie.as_str()), ("Content-Type", "application/json")];
        headers.extend_from_slice(more);
        daemon.raw(method, path, &headers, body)
    };
    assert_eq!(with("GET", "/api/engines", &[], b"").status, 200);
    let page = with("GET", "/", &[], b"");
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{page:?}");
    assert!(page.head.contains("x-frame-options: deny"), "{page:?}");

    let level = br#"{"level":"info"}"#;
    let origin = format!("http://{}", daemon.address);
    for (headers, status) in [
        (&[][..], 403),
        (&[("Origin", "http://evil.example")][..], 403),
        (&[("Sec-Fetch-Site", "cross-site")][..], 403),
        (&[("Sec-Fetch-Site", "same-site"), ("Origin", origin.as_str())][..], 403),
        (&[("Origin", origin.as_str())][..], 200),
        (&[("Sec-Fetch-Site", "same-origin")][..], 200),
    ] {
        let answer = with("PUT", "/admin/log-level", headers, level);
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
    }

    let bye = with("POST", "/logout", &[("Sec-Fetch-Site", "same-origin")], b"");
    assert_eq!(bye.status, 303, "{bye:?}");
    assert!(bye.head.contains("max-age=0"), "{bye:?}");
    assert_eq!(with("GET", "/api/engines", &[], b"").status, 401);

    let brief = daemon.create_token("brief", "viewer");
    let cookie = session(&daemon, &brief);
    let looks = || daemon.raw("GET", "/api/engines", &[("Cookie", &cookie)], b"").status;
    assert_eq!(looks(), 200);
    assert_eq!(daemon.request("DELETE", "/admin/tokens/brief", &[], "").status, 200);
    assert_eq!(looks(), 401, "a session ends with its token");
}

#[test]
fn a_session_survives_a_restart_of_the_daemon() {
    let mut daemon = Setup::default().start();
    let cookie = session(&daemon, &daemon.token);
    assert!(daemon.stop().success());
    daemon.start_again();
    assert_eq!(daemon.raw("GET", "/api/engines", &[("Cookie", &cookie)], b"").status, 200);
}

#[test]
fn signing_in_fails_with_a_page_and_too_often_with_429() {
    let daemon = Setup::default().start();
    let wrong = format!("bly_{}", "x".repeat(43));
    let first = sign_in(&daemon, &wrong);
    assert_eq!(first.status, 401, "{first:?}");
    assert!(first.head.contains("content-type: text/html"), "{first:?}");
    let pusher = daemon.create_token("pusher", "ingest");
    assert_eq!(sign_in(&daemon, &pusher).status, 403);
    (0..11).for_each(|_| drop(sign_in(&daemon, &wrong)));
    let last = sign_in(&daemon, &wrong);
    assert_eq!(last.status, 429, "{last:?}");
    assert!(last.head.contains("retry-after: "), "{last:?}");
    assert_eq!(sign_in(&daemon, &daemon.token).status, 303, "whoever fails does not lock out others behind the same address");
    assert_eq!(daemon.get("/api/engines").status, 200, "nor a sender with a valid token");
    assert_eq!(sign_in(&daemon, &wrong).status, 429, "a good sign-in does not clear the count of the bad ones");
    let bearer = format!("Bearer {wrong}");
    assert_eq!(daemon.raw("GET", "/api/engines", &[("Authorization", &bearer)], b"").status, 429);
    assert!(!daemon.log().contains(&wrong), "no token in the log");
}

#[test]
fn without_a_session_the_page_leads_to_the_form_and_a_token_in_the_address_does_nothing() {
    let daemon = Setup::default().start();
    let page = daemon.raw("GET", "/", &[], b"");
    assert_eq!((page.status, page.head.contains("location: /login")), (303, true), "{page:?}");
    let form = daemon.raw("GET", "/login", &[], b"");
    assert_eq!(form.status, 200, "{form:?}");
    assert!(!form.body.contains("name=\"next\""), "{form:?}");
    let link = daemon.raw("GET", &format!("/?token={}", daemon.token), &[], b"");
    assert_eq!(link.status, 303, "{link:?}");
    assert!(!link.head.contains("set-cookie"), "{link:?}");
    assert!(link.head.lines().any(|line| line == "location: /"), "{link:?}");
}

#[test]
fn whoever_has_to_sign_in_first_comes_to_the_page_that_was_asked_for_and_to_no_other_site() {
    let daemon = Setup::default().start();
    let goes_to = |answer: &Answer| {
        let line = answer.head.lines().find_map(|line| line.strip_prefix("location: ")).unwrap_or_else(|| panic!("{answer:?}"));
        (answer.status, line.to_owned())
    };
    let asked = daemon.raw("GET", "/failures?state=dead&sink=hook", &[], b"");
    assert_eq!(goes_to(&asked), (303, "/login?next=%2ffailures%3fstate%3ddead%26sink%3dhook".to_owned()));
    let form = daemon.raw("GET", "/login?next=%2Ffailures%3Fstate%3Ddead%26sink%3Dhook", &[], b"");
    assert!(form.body.contains(r#"name="next" value="/failures?state=dead&amp;sink=hook""#), "{form:?}");
    let again = sign_in(&daemon, "wrong&next=%2Ffailures%3Fstate%3Ddead");
    assert_eq!(again.status, 401, "{again:?}");
    assert!(again.body.contains(r#"value="/failures?state=dead""#), "a wrong token does not forget it: {again:?}");
    let with = |next: &str| goes_to(&sign_in(&daemon, &format!("{}&next={next}", daemon.token)));
    assert_eq!(with("%2Ffailures%3Fstate%3Ddead%26sink%3Dhook"), (303, "/failures?state=dead&sink=hook".to_owned()));
    for wild in
        ["https%3A%2F%2Fevil.example", "%2F%2Fevil.example%2Falerts", "%2F%5Cevil.example", "%2Falerts%0D%0ALocation%3A%20x", ""]
    {
        assert_eq!(with(wild), (303, "/".to_owned()), "{wild}");
    }
    let wild = daemon.raw("GET", "/login?next=%2F%2Fevil.example", &[], b"");
    assert_eq!((wild.status, wild.body.contains("evil")), (200, false), "{wild:?}");
}
