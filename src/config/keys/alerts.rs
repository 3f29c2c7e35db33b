//! Keys of alerts: where they go, when they are told again, who is told in place of a receiver that is away.

use super::{
    Absent::{Example, Fault, Is},
    Kind::{Bool, Duration, HttpUrl, Int, Labels, Names, Recipients, Word, Words},
    Section,
    flow::{ALLOW_LINK_LOCAL, LEVELS, URL_CREDENTIAL, URL_FILE},
    key,
};

pub(super) static ROUTES: Section = Section {
    name: "routes",
    most: 1_000,
    doc: "Which alert goes where. An alert goes to the sinks of every route that matches it, to each sink and recipient once, as the first route that names it says; what a route leaves out matches everything. With no route at all every alert goes to every sink, to mail only where smtp.to says whom; the first one ends that also for belayd's own alerts (kind system), and belayd check notes what none takes. An alert is told at once and alone; what follows within a second waits group_wait, and where more than group_max wait, or twice as many were told one by one within group_interval, they are folded into one digest, and so is what comes after, once every group_interval.",
    restart: "",
    default_entries: "",
    keys: &[
        key("levels", Words(&LEVELS), Example(r#"["WARNING", "CRITICAL"]"#), "Levels that match.").or("level").live(),
        key(
            "kinds",
            Words(&["rule", "system"]),
            Example(r#"["rule"]"#),
            "Kinds that match: rules on readings, of kind threshold and anomaly alike, or the daemon and its host.",
        )
        .or("kind")
        .live(),
        key("names", Names, Example(r#"["overheat"]"#), "Names of rules or system conditions that match.").or("name").live(),
        key("subjects", Names, Example(r#"["engine-1"]"#), "Engine ids or parts of the system that match.").or("subject").live(),
        key(
            "labels",
            Labels,
            Example(r#"{ site = "north*" }"#),
            "Labels that must all be there; * in a value stands for any characters.",
        )
        .live(),
        key("sinks", Names, Fault(r#"["log", "on-call"]"#), "Where matching alerts go: \"log\", \"smtp\", \"slack\", \"discord\", or names of webhooks and bots.")
            .or("sink")
            .live(),
        key(
            "recipients",
            Recipients,
            Example(r#"["ops@example.com"]"#),
            "To whom, at sinks that take recipients: a notice for each.",
        )
        .or("recipient")
        .live(),
        key(
            "on_unknown",
            Word(&["resend", "review"]),
            Is(r#""resend""#),
            "When the answer to a delivery never came: send it again, marked as a possible repeat, or leave it for a person.",
        )
        .live(),
        key(
            "notify_resolved",
            Bool,
            Is("true"),
            "Whether the end of an alert is told too, to whom it was told that it fires.",
        )
        .live(),
        key(
            "group_by",
            Names,
            Example(r#"["name", "site"]"#),
            "What divides its alerts into groups that are told and folded apart: kind, name, subject, or a label. Left out: one group.",
        )
        .live(),
        key(
            "group_wait",
            Duration("0", "1m"),
            Is(r#""40ms""#),
            "How long what follows within a second of another notice of its group waits for more.",
        )
        .live(),
        key("group_interval", Duration("100ms", "1d"), Is(r#""5s""#), "From one digest of a group to the next.").live(),
        key("group_max", Int(1, 100), Is("10"), "Most notices of a group that wait and are told one by one.").live(),
        key(
            "repeat_interval",
            Duration("0", "365d"),
            Is(r#""4h""#),
            "After so long an alert that still fires and that nobody has taken on is told again. \"0s\": never.",
        )
        .live(),
    ],
};

pub(super) static ALERTS: Section = Section {
    name: "alerts",
    most: 0,
    doc: "What holds for the notices of all alerts.",
    restart: "",
    default_entries: "",
    keys: &[
        key(
            "fallback_after",
            Duration("1s", "7d"),
            Is(r#""5m""#),
            "A notice that has waited for so long, or can never be delivered, is copied once to the fallback of its sink, where the sink names one.",
        )
        .live(),
        key(
            "overdue_after",
            Duration("1s", "1d"),
            Is(r#""1m""#),
            "How long a notice that is due may stay untouched while its sink works before the alert delivery-overdue tells.",
        )
        .live(),
    ],
};

pub(super) static DEADMAN: Section = Section {
    name: "deadman",
    most: 0,
    doc: "The dead-man's switch: a GET to an outside address as long as every actor and loop of belayd makes progress, for a service that tells people when it stays away. It is on where url is given.",
    restart: "",
    default_entries: "",
    keys: &[
        key("url", HttpUrl, Example(r#""https://hc.example.org/ping/5f0c""#), "Where the ping goes.").live(),
        URL_FILE,
        URL_CREDENTIAL,
        key("interval", Duration("100ms", "1d"), Is(r#""1m""#), "From one ping to the next.").live(),
        key("timeout", Duration("10ms", "5m"), Is(r#""10s""#), "For one whole answer.").live(),
        ALLOW_LINK_LOCAL,
    ],
};
