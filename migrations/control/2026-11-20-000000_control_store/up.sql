-- The control store: what must work while the store is away. Every time is in microseconds since the epoch, UTC.

CREATE TABLE identity (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    directory_id TEXT NOT NULL,
    created_at_us INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    sha256 TEXT NOT NULL UNIQUE,
    created_at_us INTEGER NOT NULL,
    expires_at_us INTEGER,
    revoked_at_us INTEGER,
    last_used_at_us INTEGER
) STRICT;
CREATE UNIQUE INDEX tokens_live_name ON tokens (name) WHERE revoked_at_us IS NULL;

CREATE TABLE sessions (
    sha256 TEXT PRIMARY KEY NOT NULL,
    token_id TEXT NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    created_at_us INTEGER NOT NULL,
    expires_at_us INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_token ON sessions (token_id);

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    at_us INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT,
    outcome TEXT NOT NULL
) STRICT;
CREATE INDEX audit_at ON audit (at_us);

-- One row an episode; at most one that is not resolved for each (kind, name, subject).
CREATE TABLE alerts (
    id TEXT PRIMARY KEY NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    subject TEXT NOT NULL,
    level TEXT NOT NULL,
    state TEXT NOT NULL,
    text TEXT NOT NULL,
    value REAL,
    threshold REAL,
    count INTEGER NOT NULL,
    opened_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL,
    acknowledged_at_us INTEGER,
    acknowledged_by TEXT,
    resolved_at_us INTEGER
) STRICT;
CREATE UNIQUE INDEX alerts_open ON alerts (kind, name, subject) WHERE state <> 'resolved';
CREATE INDEX alerts_newest ON alerts (opened_at_us, id);
CREATE INDEX alerts_resolved ON alerts (resolved_at_us) WHERE state = 'resolved';

CREATE TABLE alert_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    alert_id TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    at_us INTEGER NOT NULL,
    event TEXT NOT NULL,
    level TEXT NOT NULL,
    value REAL,
    actor TEXT,
    reason TEXT,
    text TEXT
) STRICT;
CREATE INDEX alert_events_alert ON alert_events (alert_id, id);

-- What each rule knows of each engine, written together with the alert that it opened or closed.
CREATE TABLE rule_state (
    rule TEXT NOT NULL,
    engine_id TEXT NOT NULL,
    phase TEXT NOT NULL,
    updated_at_us INTEGER NOT NULL,
    PRIMARY KEY (rule, engine_id)
) STRICT, WITHOUT ROWID;

-- When each periodic duty ran last, so that a run missed while the daemon was down is made up once.
CREATE TABLE duty_runs (
    name TEXT PRIMARY KEY NOT NULL,
    last_run_at_us INTEGER NOT NULL,
    outcome TEXT NOT NULL
) STRICT;

-- The outbox of alerts. The store has a table of the same name and columns; docs/STATES.md draws the states.
CREATE TABLE deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    sink TEXT NOT NULL,
    lane TEXT NOT NULL,
    subject TEXT NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    max_attempts INTEGER NOT NULL,
    due_at_us INTEGER NOT NULL,
    lease_until_us INTEGER,
    epoch INTEGER NOT NULL DEFAULT 0,
    claimed_by TEXT,
    last_error_type TEXT,
    last_error TEXT,
    on_unknown TEXT NOT NULL,
    possible_repeat INTEGER NOT NULL DEFAULT 0,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL,
    settled_at_us INTEGER
) STRICT;
CREATE INDEX deliveries_claim ON deliveries (sink, due_at_us, seq) WHERE state = 'ready';
CREATE INDEX deliveries_lane ON deliveries (sink, lane, seq) WHERE state IN ('ready', 'claimed', 'sending', 'retry');
CREATE INDEX deliveries_due ON deliveries (due_at_us) WHERE state IN ('scheduled', 'retry');
CREATE INDEX deliveries_lease ON deliveries (lease_until_us) WHERE state IN ('claimed', 'sending');
CREATE INDEX deliveries_failed ON deliveries (seq) WHERE state IN ('uncertain', 'dead');
CREATE INDEX deliveries_settled ON deliveries (settled_at_us) WHERE state IN ('sent', 'discarded', 'cancelled');
