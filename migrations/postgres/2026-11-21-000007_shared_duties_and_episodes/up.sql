-- When each periodic duty that concerns this database ran last, whichever instance did it, and what it found.
CREATE TABLE duties (
    name           TEXT NOT NULL PRIMARY KEY,
    instance       TEXT NOT NULL,
    last_run_at_us BIGINT NOT NULL,
    outcome        TEXT NOT NULL,
    result         TEXT
);
-- Which instances have an alert open that several of them see, and which of them told its sink: one notifies.
CREATE TABLE episodes (
    episode     TEXT COLLATE "C" NOT NULL,
    sink        TEXT COLLATE "C" NOT NULL,
    instance    TEXT COLLATE "C" NOT NULL,
    told        BIGINT NOT NULL DEFAULT 0,
    open        BIGINT NOT NULL DEFAULT 1,
    since_us    BIGINT NOT NULL,
    PRIMARY KEY (episode, sink, instance)
);
