//! Failed sign-ins by address, within a window. Bounded: beyond the bound the oldest window makes room.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Failures within the window that are answered with 401; further ones get 429.
const MAX_FAILURES: u32 = 10;
/// Counted from the first failure.
const WINDOW: Duration = Duration::from_secs(60);
/// Most addresses that are remembered.
const MAX_ADDRESSES: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    failures: u32,
}

/// The table. An IPv6 client counts by its /64, since it owns all of that.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<HashMap<IpAddr, Window>>);

impl Throttle {
    /// Counts a failure and returns how many there were in the window.
    pub fn fail(&self, address: IpAddr) -> u32 {
        self.fail_at(network(address), Instant::now())
    }

    /// Seconds to wait; `None` where the address may try.
    pub fn wait_s(&self, address: IpAddr) -> Option<u32> {
        self.wait_at(network(address), Instant::now())
    }

    fn fail_at(&self, network: IpAddr, now: Instant) -> u32 {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MAX_ADDRESSES && !windows.contains_key(&network) {
            windows.retain(|_, window| now.duration_since(window.began) < WINDOW);
            if windows.len() >= MAX_ADDRESSES
                && let Some(oldest) = windows.iter().min_by_key(|(_, window)| window.began).map(|(network, _)| *network)
            {
                windows.remove(&oldest);
            }
        }
        let window = windows.entry(network).or_insert(Window { began: now, failures: 0 });
        if now.duration_since(window.began) >= WINDOW {
            *window = Window { began: now, failures: 0 };
        }
        window.failures = window.failures.saturating_add(1);
        window.failures
    }

    fn wait_at(&self, network: IpAddr, now: Instant) -> Option<u32> {
        let windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.get(&network)?;
        let left = WINDOW.checked_sub(now.duration_since(window.began))?;
        (window.failures > MAX_FAILURES).then(|| left.as_secs() as u32 + 1)
    }
}

/// An IPv6 client owns a /64, and counts by it.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_failures_are_answered_then_the_address_waits_until_the_window_ends() {
        let throttle = Throttle::default();
        let (address, start) = (IpAddr::from([192, 0, 2, 1]), Instant::now());
        for n in 1..=10 {
            assert_eq!(throttle.fail_at(address, start), n);
            assert_eq!(throttle.wait_at(address, start), None);
        }
        throttle.fail_at(address, start);
        assert_eq!(throttle.wait_at(address, start + Duration::from_secs(20)), Some(41));
        assert_eq!(throttle.wait_at(IpAddr::from([192, 0, 2, 2]), start), None);
        assert_eq!(throttle.wait_at(address, start + WINDOW + Duration::from_secs(1)), None);
        assert_eq!(throttle.fail_at(address, start + WINDOW), 1);
    }

    #[test]
    fn an_ipv6_client_counts_by_its_network() {
        let throttle = Throttle::default();
        for n in 0..=10_u16 {
            throttle.fail(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]));
        }
        assert!(throttle.wait_s("2001:db8:0:1::ffff".parse().expect("an address")).is_some());
        assert!(throttle.wait_s("2001:db8:0:2::1".parse().expect("an address")).is_none());
    }

    #[test]
    fn the_table_is_bounded() {
        let throttle = Throttle::default();
        for n in 0..(MAX_ADDRESSES as u32 + 50) {
            throttle.fail(IpAddr::from(n.to_be_bytes()));
        }
        assert!(throttle.0.lock().unwrap().len() <= MAX_ADDRESSES);
    }
}
