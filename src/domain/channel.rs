//! Failures of a way out, told apart from those of what was to be sent: a delivery that met one waits for its channel, not for a time.
//!
//! Sinks give their errors these words, deliveries keep the word of their last failure, and by it they are found again when their channel
//! is back. A failure with which the receiver asked to be left alone for a time (Retry-After) has another word.

/// Words of failures that say nothing about the delivery: no connection, no TLS, no dialogue, the receiver itself is broken; and the sink
/// is set up wrongly, so that a person has to change something: signing in, the sender, the address, who answers there.
pub const FAULTS: [&str; 12] =
    ["connect", "tls", "protocol", "smtp_421", "status_5xx", "timeout", "broken", "auth", "sender", "refused", DENIED, "not_slack"];

/// The receiver takes nothing from us, or nothing at this address: a password or an address is wrong or no longer valid.
pub const DENIED: &str = "denied";

/// Those of them after which the delivery may have arrived, where it is marked as a possible repeat.
pub const UNHEARD: [&str; 2] = ["timeout", "broken"];

/// A broken receiver that says when it wants to be asked again. It is no fault of the channel: what it was to get waits for that time.
pub const ASKED_TO_WAIT: &str = "asked_to_wait";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_arrived_is_a_fault_of_the_channel_and_a_wish_to_wait_is_none() {
        assert!(UNHEARD.iter().all(|word| FAULTS.contains(word)));
        assert!(!FAULTS.contains(&ASKED_TO_WAIT));
    }
}
