-- Who may do a piece of work that several instances share, until when, and under which epoch: what an earlier holder still writes is
-- refused by it. A row is never deleted, so that its epoch only rises.
CREATE TABLE leases (
    name           TEXT NOT NULL PRIMARY KEY,
    owner          TEXT NOT NULL,
    epoch          INTEGER NOT NULL,
    lease_until_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- The daemons that use this database, one row a data directory.
CREATE TABLE instances (
    instance        TEXT NOT NULL PRIMARY KEY,
    run             TEXT NOT NULL,
    host            TEXT NOT NULL,
    pid             INTEGER NOT NULL,
    version         TEXT NOT NULL,
    url             TEXT NOT NULL,
    tier            TEXT NOT NULL,
    started_at_us   INTEGER NOT NULL,
    heartbeat_at_us INTEGER NOT NULL,
    stopped_at_us   INTEGER
) STRICT, WITHOUT ROWID;
