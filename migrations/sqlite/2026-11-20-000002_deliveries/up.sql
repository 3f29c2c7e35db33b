-- The outbox: one row a delivery. docs/STATES.md draws the states; the control store has a table of the same columns.
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
