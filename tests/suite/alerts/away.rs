//! A receiver that is away, through a restart, and comes back.

use super::{LIMIT, Receiver, push};
use crate::support::{
    daemon::{Daemon, Setup},
    ports,
};

/// Attempts that found nobody, by the daemon's own count.
fn trials(daemon: &Daemon) -> u64 {
    let metrics = daemon.get("/metrics").body;
    let line = metrics.lines().find(|line| line.starts_with("belayd_send_failures_total") && line.contains("connect"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn what_waited_for_a_receiver_goes_out_once_when_it_is_back_although_nothing_is_due_for_hours() {
    let address = format!("127.0.0.1:{}", ports::free());
    let more = format!(
        "[outbox]\nretry_base = \"1h\"\nretry_max = \"1d\"\nmax_attempts = 3\n[[webhooks]]\nname = \"hook\"\nurl = \"http://{address}/\"\n\
         breaker_pause = \"100ms\"\n[[routes]]\nsinks = [\"hook\"]\nkinds = [\"rule\"]\n"
    );
    let mut daemon = Setup::with(&more).start();
    for n in 0..6 {
        push(&daemon, &format!("e{n}"), "temperature", 400.0);
    }
    // More than the attempts of all of them together.
    daemon.wait_for("it is tried again and again", LIMIT, |daemon| trials(daemon) >= 20);
    daemon.kill();
    daemon.start_again();
    daemon.wait_for("the next life tries it too", LIMIT, |daemon| trials(daemon) >= 2);
    let receiver = Receiver::on(&address, 204);
    daemon.wait_for("all are told", LIMIT, |_| (0..6).all(|n| receiver.count(&format!("firing e{n}")) >= 1));
    for n in 0..6 {
        push(&daemon, &format!("e{n}"), "temperature", 20.0);
    }
    daemon.wait_for("and of their ends", LIMIT, |_| (0..6).all(|n| receiver.count(&format!("resolved e{n}")) >= 1));
    assert_eq!(receiver.all().len(), 12, "each once: {:?}", receiver.words());
}
