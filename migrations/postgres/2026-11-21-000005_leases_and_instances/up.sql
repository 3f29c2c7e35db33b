-- Who may do a piece of work that several instances share, until when, and under which epoch: what an earlier holder still writes is
-- refused by it. A row is never deleted, so that its epoch only rises.
CREATE TABLE leases (
    name           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    owner          TEXT NOT NULL,
    epoch          BIGINT NOT NULL,
    lease_until_us BIGINT NOT NULL
);
-- The daemons that use this database, one row a data directory.
CREATE TABLE instances (
    instance        TEXT NOT NULL PRIMARY KEY,
    run             TEXT NOT NULL,
    host            TEXT NOT NULL,
    pid             BIGINT NOT NULL,
    version         TEXT NOT NULL,
    url             TEXT NOT NULL,
    tier            TEXT NOT NULL,
    started_at_us   BIGINT NOT NULL,
    heartbeat_at_us BIGINT NOT NULL,
    stopped_at_us   BIGINT
);
