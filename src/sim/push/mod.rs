//! `simulate --push`: sends readings until each is acknowledged.
//!
//! In: an [`Origin`]. Out: POSTs to a daemon, and a [`Summary`]. A thread makes readings and packs them ([`pack`]); each of a few
//! lanes sends one push at a time ([`lane`]). An engine always goes by the same lane, so its order is kept while several pushes are
//! in flight. Everything is bounded: two packed pushes wait for each lane, then the maker waits. A push whose outcome is unknown is
//! repeated byte for byte; the readings carry their times, so that the daemon tells repeats.

mod lane;
mod pack;
mod stop;
mod tally;

use std::{sync::Arc, thread, time::Instant};

use tokio::sync::mpsc;
use url::Url;

pub use self::{
    stop::Stop,
    tally::{Summary, Tally},
};
use super::origin::{Notice, Origin};
use crate::ingest::http_client::{ClientPolicy, GuardedClient};

/// Pushes that wait for a lane beside the one in flight.
const WAITING_MAX: usize = 2;

/// Where to and how.
#[derive(Clone)]
pub struct PushOptions {
    /// The daemon; a URL without a path gets `/api/readings`.
    pub url: Url,
    /// An ingest token.
    pub token: Option<String>,
    /// Requests in flight at once.
    pub lanes: usize,
    /// Most readings in one push; the daemon takes 10,000.
    pub batch_rows: u64,
    /// Told of an outage, once for each push that it holds up.
    pub notice: Notice,
    /// Told of every settled push.
    pub progress: Progress,
}

/// Told while it runs: readings settled, and bytes of the file that have been read.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Sends everything that `origin` gives, until it ends or `stop` is set, and returns when every push is settled or given up.
/// Must run on a tokio runtime whose thread drives its timers.
pub async fn run(origin: Origin, options: PushOptions, stop: Stop) -> Summary {
    let started = Instant::now();
    let tally = Arc::new(Tally::new(Arc::clone(&options.progress)));
    let mut policy = ClientPolicy::default();
    if let Some(token) = &options.token {
        policy.headers.insert("authorization".to_owned(), format!("Bearer {token}"));
    }
    let client = GuardedClient::new(policy);
    let mut url = options.url.clone();
    if url.path() == "/" {
        url.set_path("/api/readings");
    }
    let mut senders = Vec::new();
    let mut lanes = Vec::new();
    for _ in 0..options.lanes.max(1) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        senders.push(sender);
        let lane = lane::Lane {
            client: client.clone(),
            url: url.to_string(),
            tally: Arc::clone(&tally),
            stop: stop.clone(),
            notice: Arc::clone(&options.notice),
        };
        lanes.push(lane.run(receiver));
    }
    let packer = pack::Packer::new(senders, options.batch_rows, Arc::clone(&tally));
    let runtime = tokio::runtime::Handle::current();
    let maker_stop = stop.clone();
    let maker =
        thread::Builder::new().name("simulator".to_owned()).spawn(move || pack::make(origin, packer, &maker_stop, &runtime));
    match maker {
        Ok(maker) => {
            // The lanes end when the maker has dropped their channels; only then is it joined, so that it never blocks the lanes.
            futures_util::future::join_all(lanes).await;
            match maker.join() {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => tally.fail(fault),
                Err(_) => tally.fail("the simulator itself failed; this is a fault in belayd".to_owned()),
            }
        }
        Err(error) => tally.fail(format!("no thread can be started: {error}")),
    }
    tally.summary(started.elapsed())
}

#[cfg(test)]
mod tests;
