CREATE TABLE streams (
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

CREATE TABLE readings (
    engine_id      TEXT NOT NULL,
    observed_at_us INTEGER NOT NULL,
    status         TEXT,
    temperature    REAL,
    rpm            REAL,
    pressure       REAL,
    fuel_flow      REAL,
    extra          TEXT,
    stream_no      INTEGER NOT NULL,
    seq            INTEGER NOT NULL,
    created_at_us  INTEGER NOT NULL,
    updated_at_us  INTEGER,
    PRIMARY KEY (engine_id, observed_at_us)
) STRICT, WITHOUT ROWID;

CREATE TABLE batches (
    stream        TEXT NOT NULL,
    first_seq     INTEGER NOT NULL,
    last_seq      INTEGER NOT NULL,
    stored        INTEGER NOT NULL,
    duplicate     INTEGER NOT NULL,
    conflict      INTEGER NOT NULL,
    dead          INTEGER NOT NULL,
    discarded     INTEGER NOT NULL DEFAULT 0,
    exceptions    TEXT,
    checksum      INTEGER NOT NULL,
    created_at_us INTEGER NOT NULL,
    updated_at_us INTEGER NOT NULL,
    PRIMARY KEY (stream, first_seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX batches_created_at ON batches (created_at_us);

CREATE TABLE reading_failures (
    id             TEXT NOT NULL PRIMARY KEY,
    kind           TEXT NOT NULL CHECK (kind IN ('conflict', 'dead')),
    state          TEXT NOT NULL CHECK (state IN ('open', 'retried', 'discarded')),
    stream         TEXT NOT NULL,
    seq            INTEGER NOT NULL,
    engine_id      TEXT NOT NULL,
    observed_at_us INTEGER NOT NULL,
    payload        TEXT NOT NULL,
    existing       TEXT,
    error_code     TEXT,
    message        TEXT NOT NULL,
    attempts       INTEGER NOT NULL DEFAULT 0,
    reason         TEXT,
    actor          TEXT,
    created_at_us  INTEGER NOT NULL,
    updated_at_us  INTEGER NOT NULL,
    UNIQUE (stream, seq)
) STRICT;
CREATE INDEX reading_failures_state ON reading_failures (state, id);
