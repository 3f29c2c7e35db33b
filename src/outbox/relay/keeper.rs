//! The keeper: looks which streams have something to relay, takes their leases, and gives each a thread.

use std::{collections::HashMap, sync::Arc, thread::JoinHandle};

use super::{LOOK, Shared, lane::Lane};
use crate::store::{
    Conn, StoreResult,
    leases::{self, Lease},
    relay,
};

/// A dead instance's streams go on here in time, with what it takes to open one at Kafka.
const _: () = assert!(leases::TTL.as_millis() + LOOK.as_millis() + 3_000 <= leases::TAKEN_OVER_WITHIN.as_millis());

/// Streams that are relayed at once; further ones wait until one of these has nothing left.
const LANES_MAX: usize = 16;

/// Runs until the relay stops.
pub(super) fn keep(shared: &Arc<Shared>) {
    let mut threads: HashMap<String, JoinHandle<()>> = HashMap::new();
    let mut writer = shared.parts.store.writer();
    while !shared.stopping() {
        threads.retain(|lane, thread| {
            let runs = !thread.is_finished();
            if !runs {
                log::debug!(target: "belayd::relay", stream = lane.as_str(); "stream left");
            }
            runs
        });
        let room = LANES_MAX.saturating_sub(threads.len());
        if room > 0 && (shared.parts.store_is_up)() {
            let own: Vec<String> = (shared.parts.own)().iter().map(ToString::to_string).collect();
            let served = |lane: &String| threads.contains_key(lane);
            match writer.with(|conn| find(conn, &own, &served, room, &shared.parts.worker)) {
                Ok(leases) => {
                    for (lane, lease) in leases {
                        if let Some(thread) = serve(shared, lane.clone(), lease) {
                            threads.insert(lane, thread);
                        }
                    }
                }
                Err(error) => {
                    log::debug!(target: "belayd::relay", error:% = error; "the streams to relay were not found; tried again")
                }
            }
        }
        // Own streams are served for as long as they are: only others are looked for, and these by the clock.
        shared.pause_as_keeper(&threads);
    }
    for (_, thread) in threads {
        // A panic was told by its hook; the process ends.
        let _ = thread.join();
    }
}

/// Leases of streams that nobody serves: this process's own first, then those with a backlog.
fn find(
    conn: &mut Conn,
    own: &[String],
    served: &dyn Fn(&String) -> bool,
    room: usize,
    worker: &str,
) -> StoreResult<Vec<(String, Lease)>> {
    let waiting = relay::lanes(conn, LANES_MAX * 4)?;
    let mut found = Vec::new();
    let others = waiting.iter().filter(|lane| !own.contains(lane));
    for lane in own.iter().chain(others).filter(|lane| !served(lane)) {
        if found.len() >= room {
            break;
        }
        let name = format!("relay/{lane}");
        if let Some(lease) = conn.write(|conn| leases::take(conn, &name, worker, leases::TTL))? {
            found.push((lane.clone(), lease));
        }
    }
    Ok(found)
}

fn serve(shared: &Arc<Shared>, lane: String, lease: Lease) -> Option<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("relay-lane".into()).spawn({
        let shared = shared.clone();
        move || Lane::new(shared, lane, lease).run()
    });
    thread.inspect_err(|error| log::error!(target: "belayd::relay", error:% = error; "no thread for a stream; tried again")).ok()
}

impl Shared {
    fn pause_as_keeper(&self, threads: &HashMap<String, JoinHandle<()>>) {
        let all_served = (self.parts.own)().iter().all(|stream| threads.contains_key(&stream.to_string()));
        // At the start the own streams are not served yet, because the database was not migrated.
        let limit = if all_served { LOOK } else { LOOK / 20 };
        self.pause(limit);
    }
}
