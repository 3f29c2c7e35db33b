//! Ports for servers that are started a moment later, and perhaps started again on the same port.
//!
//! They lie below the range from which the kernel gives ports to connections and to whoever binds port 0, and each is handed out once in a
//! process: hundreds of tests side by side would else take each other's between the choice and the start.

#![allow(unreachable_pub, dead_code, reason = "not every test binary and benchmark uses all of it")]

use std::{
    net::TcpListener,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// First port that is handed out.
const FIRST: u32 = 10_000;
/// How many there are: up to 32,767, where the kernel's own begin.
const COUNT: u32 = 22_700;

static NEXT: AtomicU32 = AtomicU32::new(0);

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A loopback port that nobody listens on and that no other test of this process gets.
pub fn free() -> u16 {
    free_where(|_| true)
}

/// The same, of which `also` holds.
pub fn free_where(also: impl Fn(u16) -> bool) -> u16 {
    // Processes that run at the same time begin far from each other.
    let from = process::id().wrapping_mul(7_919) % COUNT;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + (from + step) % COUNT).expect("below 32,768");
        if is_free(port) && also(port) {
            return port;
        }
    }
    panic!("no free port from {FIRST} on");
}

/// Whether the cluster's bus of a Redis on `port`, 10,000 above it, has a free port too.
pub fn has_bus(port: u16) -> bool {
    port.checked_add(10_000).is_some_and(is_free)
}
