-- When each periodic duty that concerns this database ran last, whichever instance did it, and what it found.
CREATE TABLE duties (
    name           TEXT NOT NULL PRIMARY KEY,
    instance       TEXT NOT NULL,
    last_run_at_us INTEGER NOT NULL,
    outcome        TEXT NOT NULL,
    result         TEXT
) STRICT, WITHOUT ROWID;
-- Which instances have an alert open that several of them see, and which of them told its sink: one notifies.
CREATE TABLE episodes (
    episode     TEXT NOT NULL,
    sink        TEXT NOT NULL,
    instance    TEXT NOT NULL,
    told        INTEGER NOT NULL DEFAULT 0,
    open        INTEGER NOT NULL DEFAULT 1,
    since_us    INTEGER NOT NULL,
    PRIMARY KEY (episode, sink, instance)
) STRICT, WITHOUT ROWID;
