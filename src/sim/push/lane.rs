//! Sends one push after the other and repeats each until the daemon has said what became of it.

use std::{sync::Arc, time::Duration};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Stop, Tally, pack::Push};
use crate::{
    ingest::http_client::{Answer, ClientError, FailureKind, GuardedClient},
    sim::origin::Notice,
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// What a push gets once the run is to end.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer that refuses 10,000 readings with their reasons takes about 1 MB.
const ANSWER_MAX_BYTES: usize = 8 * 1024 * 1024;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A daemon that asks for more patience is asked again after this.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// After so many failures in a row a person is told, once for each outage.
const TELL_AFTER: u32 = 3;

/// One lane.
pub(super) struct Lane {
    pub(super) client: GuardedClient,
    pub(super) url: String,
    pub(super) tally: Arc<Tally>,
    pub(super) stop: Stop,
    pub(super) notice: Notice,
}

/// What an attempt says about the push.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Settled, item by item.
    Settled { accepted: u64, rejected: Vec<Rejected> },
    /// Try again, not before this where the daemon said so; `unknown` where it may have been taken.
    Again { after: Option<Duration>, unknown: bool, why: String },
    /// Repeating cannot help.
    Fatal(String),
}

#[derive(Debug, Deserialize, PartialEq)]
struct Rejected {
    index: u64,
    code: String,
    message: String,
}

#[derive(Deserialize)]
struct Taken {
    accepted: u64,
    #[serde(default)]
    rejected: Vec<Rejected>,
}

impl Lane {
    pub(super) async fn run(self, mut pushes: mpsc::Receiver<Push>) {
        while let Some(push) = pushes.recv().await {
            if !self.deliver(&push).await {
                // The readings stay "not delivered"; what still waits for this lane does, too. Closing it tells the maker.
                pushes.close();
                return;
            }
        }
    }

    /// Whether the lane can go on to the next push.
    async fn deliver(&self, push: &Push) -> bool {
        let mut failures = 0u32;
        loop {
            let last = self.stop.is_set();
            let timeout = if last { LAST_TIMEOUT } else { REQUEST_TIMEOUT };
            let json = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
            let answer = self.client.post(&self.url, push.body.clone(), &json, timeout, ANSWER_MAX_BYTES).await;
            let (after, unknown, why) = match verdict(answer, push.rows) {
                Verdict::Settled { accepted, rejected } => {
                    let reasons = rejected.iter().map(|item| format!("item {}: {}: {}", item.index, item.code, item.message));
                    self.tally.add_settled(accepted, rejected.len() as u64, reasons);
                    return true;
                }
                Verdict::Fatal(fault) => {
                    self.tally.fail(fault);
                    self.stop.set();
                    return false;
                }
                Verdict::Again { after, unknown, why } => (after, unknown, why),
            };
            if last {
                self.tally.fail(format!("given up when the run was ended: {why}"));
                return false;
            }
            failures += 1;
            if failures == TELL_AFTER {
                (self.notice)(&format!("{why}; trying on until it is acknowledged"));
            }
            self.stop.sleep(after.map_or_else(|| backoff(failures), |after| after.min(RETRY_AFTER_MAX))).await;
            self.tally.add_retry(if unknown { push.rows } else { 0 });
        }
    }
}

/// Doubles from 100 ms to 5 s, minus up to a half at random, so that lanes do not come back together.
fn backoff(failures: u32) -> Duration {
    let full = BACKOFF_FIRST.saturating_mul(1 << (failures - 1).min(10)).min(BACKOFF_MAX);
    full.mul_f64(rand::random_range(0.5..1.0))
}

fn verdict(answer: Result<Answer, ClientError>, rows: u64) -> Verdict {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let unknown = error.kind != FailureKind::Connect;
            return match error.kind {
                FailureKind::Refused | FailureKind::TooLarge => Verdict::Fatal(error.message),
                FailureKind::Connect | FailureKind::Timeout | FailureKind::Broken => {
                    Verdict::Again { after: None, unknown, why: error.message }
                }
            };
        }
    };
    match answer.status {
        200..=299 => match serde_json::from_slice::<Taken>(&answer.body) {
            Ok(taken) if taken.accepted + taken.rejected.len() as u64 == rows => {
                Verdict::Settled { accepted: taken.accepted, rejected: taken.rejected }
            }
            _ => {
                Verdict::Fatal(format!("the answer {} does not account for all {rows} readings; is this a belayd?", answer.status))
            }
        },
        // These say that the push was not taken, or not now.
        408 | 425 | 429 | 503 | 507 => {
            let after =
                answer.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
            Verdict::Again { after, unknown: false, why: explain(&answer) }
        }
        500..=599 => Verdict::Again { after: None, unknown: true, why: explain(&answer) },
        _ => Verdict::Fatal(explain(&answer)),
    }
}

/// The daemon's own error where it sent one: code, message, hint and the first details.
fn explain(answer: &Answer) -> String {
    #[derive(Deserialize)]
    struct Body {
        error: Told,
    }
    #[derive(Deserialize)]
    struct Told {
        code: String,
        message: String,
        hint: Option<String>,
        #[serde(default)]
        details: Vec<serde_json::Value>,
    }
    let Ok(Body { error }) = serde_json::from_slice(&answer.body) else {
        return format!("the daemon answered {}", answer.status);
    };
    let mut text = format!("the daemon answered {} {}: {}", answer.status, error.code, error.message);
    if let Some(hint) = error.hint {
        text = format!("{text} ({hint})");
    }
    for detail in error.details.iter().take(3) {
        text = format!("{text}\n  {detail}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<Answer, ClientError> {
        Ok(Answer { status, headers: HeaderMap::new(), body: body.to_owned().into() })
    }

    #[test]
    fn an_answer_must_account_for_every_reading() {
        assert_eq!(verdict(answer(202, r#"{"accepted":2}"#), 2), Verdict::Settled { accepted: 2, rejected: vec![] });
        assert!(matches!(verdict(answer(202, r#"{"accepted":1}"#), 2), Verdict::Fatal(_)));
        assert!(matches!(verdict(answer(200, "<html>"), 2), Verdict::Fatal(_)));
        let partly = r#"{"accepted":1,"rejected":[{"index":1,"code":"c","message":"m"}]}"#;
        assert!(matches!(verdict(answer(202, partly), 2), Verdict::Settled { accepted: 1, rejected } if rejected.len() == 1));
    }

    #[test]
    fn refusals_for_now_come_again_and_others_end_the_run() {
        let mut busy = answer(429, "").expect("an answer");
        busy.headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        assert!(matches!(verdict(Ok(busy), 1), Verdict::Again { after: Some(after), unknown: false, .. } if after.as_secs() == 7));
        assert!(matches!(verdict(answer(503, ""), 1), Verdict::Again { after: None, unknown: false, .. }));
        assert!(matches!(verdict(answer(502, ""), 1), Verdict::Again { unknown: true, .. }));
        let refused = answer(401, r#"{"error":{"code":"unauthorized","message":"no token","hint":"send one"}}"#);
        assert_eq!(verdict(refused, 1), Verdict::Fatal("the daemon answered 401 unauthorized: no token (send one)".to_owned()));
        assert!(matches!(verdict(answer(302, ""), 1), Verdict::Fatal(_)));
    }

    #[test]
    fn only_a_connection_that_never_came_about_leaves_no_doubt() {
        for (kind, doubt) in [(FailureKind::Connect, false), (FailureKind::Timeout, true), (FailureKind::Broken, true)] {
            let failed = Err(ClientError { kind, message: "m".to_owned() });
            assert!(matches!(verdict(failed, 1), Verdict::Again { unknown, .. } if unknown == doubt), "{kind:?}");
        }
    }

    #[test]
    fn the_wait_doubles_within_its_bounds() {
        for failures in 1..40 {
            let wait = backoff(failures);
            assert!(wait >= BACKOFF_FIRST / 2 && wait <= BACKOFF_MAX, "{failures}: {wait:?}");
        }
    }
}
