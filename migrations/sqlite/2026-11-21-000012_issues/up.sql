-- What people work on: opened by an alert or by a person, talked about, closed.
CREATE TABLE issues (
    id             TEXT NOT NULL PRIMARY KEY,
    title          TEXT NOT NULL,
    body           TEXT NOT NULL,
    state          TEXT NOT NULL,
    level          TEXT,
    kind           TEXT,
    name           TEXT,
    subject        TEXT,
    opened_by      TEXT NOT NULL,
    views          INTEGER NOT NULL DEFAULT 0,
    comments       INTEGER NOT NULL DEFAULT 0,
    created_at_us  INTEGER NOT NULL,
    updated_at_us  INTEGER NOT NULL,
    resolved_at_us INTEGER,
    closed_at_us   INTEGER
) STRICT;
-- At most one that is worked on for what an alert is about.
CREATE UNIQUE INDEX issues_open_episode ON issues (kind, name, subject) WHERE kind IS NOT NULL AND state IN ('OPEN', 'IN_PROGRESS');
CREATE INDEX issues_state ON issues (state, id);
CREATE INDEX issues_closed ON issues (closed_at_us) WHERE state = 'CLOSED';
CREATE TABLE issue_events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    issue_id    TEXT NOT NULL,
    at_us       INTEGER NOT NULL,
    event       TEXT NOT NULL,
    actor       TEXT NOT NULL,
    text        TEXT,
    alert_id    TEXT,
    -- The delivery that brought it: one that comes again changes nothing.
    delivery_id TEXT UNIQUE
) STRICT;
CREATE INDEX issue_events_issue ON issue_events (issue_id, id);
