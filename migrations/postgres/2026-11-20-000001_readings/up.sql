CREATE TABLE streams (
    no            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream        TEXT NOT NULL UNIQUE,
    tier          TEXT NOT NULL,
    instance      TEXT NOT NULL,
    cursor_seq    BIGINT NOT NULL DEFAULT 0,
    pruned_seq    BIGINT NOT NULL DEFAULT 0,
    stored        BIGINT NOT NULL DEFAULT 0,
    duplicate     BIGINT NOT NULL DEFAULT 0,
    conflict      BIGINT NOT NULL DEFAULT 0,
    dead          BIGINT NOT NULL DEFAULT 0,
    discarded     BIGINT NOT NULL DEFAULT 0,
    opened_at_us  BIGINT NOT NULL,
    closed_at_us  BIGINT,
    closing       TEXT CHECK (closing IN ('drained', 'cut'))
);

CREATE TABLE readings (
    engine_id      TEXT COLLATE "C" NOT NULL,
    observed_at_us BIGINT NOT NULL,
    status         TEXT,
    temperature    DOUBLE PRECISION,
    rpm            DOUBLE PRECISION,
    pressure       DOUBLE PRECISION,
    fuel_flow      DOUBLE PRECISION,
    extra          TEXT,
    stream_no      BIGINT NOT NULL,
    seq            BIGINT NOT NULL,
    created_at_us  BIGINT NOT NULL,
    updated_at_us  BIGINT,
    PRIMARY KEY (engine_id, observed_at_us)
);

CREATE TABLE batches (
    stream        TEXT NOT NULL,
    first_seq     BIGINT NOT NULL,
    last_seq      BIGINT NOT NULL,
    stored        BIGINT NOT NULL,
    duplicate     BIGINT NOT NULL,
    conflict      BIGINT NOT NULL,
    dead          BIGINT NOT NULL,
    discarded     BIGINT NOT NULL DEFAULT 0,
    exceptions    TEXT,
    checksum      BIGINT NOT NULL,
    created_at_us BIGINT NOT NULL,
    updated_at_us BIGINT NOT NULL,
    PRIMARY KEY (stream, first_seq)
);
CREATE INDEX batches_created_at ON batches (created_at_us);

CREATE TABLE reading_failures (
    id             TEXT NOT NULL PRIMARY KEY,
    kind           TEXT NOT NULL CHECK (kind IN ('conflict', 'dead')),
    state          TEXT NOT NULL CHECK (state IN ('open', 'retried', 'discarded')),
    stream         TEXT NOT NULL,
    seq            BIGINT NOT NULL,
    engine_id      TEXT COLLATE "C" NOT NULL,
    observed_at_us BIGINT NOT NULL,
    payload        TEXT NOT NULL,
    existing       TEXT,
    error_code     TEXT,
    message        TEXT NOT NULL,
    attempts       INTEGER NOT NULL DEFAULT 0,
    reason         TEXT,
    actor          TEXT,
    created_at_us  BIGINT NOT NULL,
    updated_at_us  BIGINT NOT NULL,
    UNIQUE (stream, seq)
);
CREATE INDEX reading_failures_state ON reading_failures (state, id);
