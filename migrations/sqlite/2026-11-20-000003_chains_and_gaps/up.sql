-- What stands for every reading up to the cursor, so that another history under the same numbers is recognised; and numbers that have
-- no reading. A batch with a gap holds no readings: `gap` says why, `missing` how many of its numbers had been acknowledged.
-- SQLite cannot change a CHECK: the table of streams is made anew.
CREATE TABLE streams_new (
    no            INTEGER PRIMARY KEY,
    stream        TEXT NOT NULL UNIQUE,
    tier          TEXT NOT NULL,
    instance      TEXT NOT NULL,
    cursor_seq    INTEGER NOT NULL DEFAULT 0,
    pruned_seq    INTEGER NOT NULL DEFAULT 0,
    stored        INTEGER NOT NULL DEFAULT 0,
    duplicate     INTEGER NOT NULL DEFAULT 0,
    conflict      INTEGER NOT NULL DEFAULT 0,
    dead          INTEGER NOT NULL DEFAULT 0,
    discarded     INTEGER NOT NULL DEFAULT 0,
    opened_at_us  INTEGER NOT NULL,
    closed_at_us  INTEGER,
    closing       TEXT CHECK (closing IN ('drained', 'cut', 'forked')),
    cursor_chain  INTEGER NOT NULL DEFAULT 0,
    quarantined   INTEGER NOT NULL DEFAULT 0,
    void          INTEGER NOT NULL DEFAULT 0,
    lost          INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO streams_new (no, stream, tier, instance, cursor_seq, pruned_seq, stored, duplicate, conflict, dead, discarded, opened_at_us, closed_at_us, closing) SELECT no, stream, tier, instance, cursor_seq, pruned_seq, stored, duplicate, conflict, dead, discarded, opened_at_us, closed_at_us, closing FROM streams;
DROP TABLE streams;
ALTER TABLE streams_new RENAME TO streams;
ALTER TABLE batches DROP COLUMN checksum;
ALTER TABLE batches ADD COLUMN gap TEXT CHECK (gap IN ('quarantined', 'void', 'lost'));
ALTER TABLE batches ADD COLUMN missing INTEGER NOT NULL DEFAULT 0;
