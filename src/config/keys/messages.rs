//! Keys of messages to people, and of how much a caller may ask.

use super::{
    Absent::Is,
    Kind::{Int, Word},
    Section, key,
};

pub(super) static MESSAGES: Section = Section {
    name: "messages",
    most: 0,
    doc: "Messages to people (POST /api/messages).",
    restart: "",
    default_entries: "",
    keys: &[key(
        "on_unknown",
        Word(&["review", "resend"]),
        Is(r#""review""#),
        "When the answer to a delivery of a message never came: leave it for a person, or send it again, marked as a possible repeat. It holds for messages that are taken from then on.",
    )
    .live()],
};

pub(super) static LIMITS: Section = Section {
    name: "limits",
    most: 0,
    doc: "How much a caller may ask. Beyond it the answer is 429 with Retry-After; RateLimit-Limit, RateLimit-Remaining and RateLimit-Reset tell how much is left. After a quiet time a minute's worth passes at once. Pushes of readings have limits of their own (buffer.readings_per_s, buffer.admission_bytes), and the control socket has none.",
    restart: "",
    default_entries: "",
    keys: &[
        key(
            "messages_per_minute",
            Int(0, 1_000_000),
            Is("600"),
            "Messages a minute that each token may hand in, wrong and repeated ones included. 0: no limit.",
        )
        .live(),
        key(
            "requests_per_minute",
            Int(0, 1_000_000),
            Is("6000"),
            "Requests a minute that write (POST, PUT, PATCH, DELETE) from each client address, whoever sends them; of IPv6 the first 64 bits count. Behind a proxy it is the address that server.behind_proxy vouches for. 0: no limit.",
        )
        .live(),
    ],
};
