CREATE TABLE streams_old (
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
    closing       TEXT CHECK (closing IN ('drained', 'cut'))
) STRICT;
INSERT INTO streams_old (no, stream, tier, instance, cursor_seq, pruned_seq, stored, duplicate, conflict, dead, discarded, opened_at_us, closed_at_us, closing)
    SELECT no, stream, tier, instance, cursor_seq, pruned_seq, stored, duplicate, conflict, dead, discarded, opened_at_us, closed_at_us, CASE closing WHEN 'forked' THEN 'cut' ELSE closing END FROM streams;
DROP TABLE streams;
ALTER TABLE streams_old RENAME TO streams;
ALTER TABLE batches DROP COLUMN gap;
ALTER TABLE batches DROP COLUMN missing;
ALTER TABLE batches ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
