-- What an alert carries for routes and silences to select by, why it was not told when it began, and when to look at it again: for a
-- repeat, or because what held it back may be over.
ALTER TABLE alerts ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE alerts ADD COLUMN withheld TEXT;
ALTER TABLE alerts ADD COLUMN look_at_us INTEGER;
CREATE INDEX alerts_look ON alerts (look_at_us) WHERE state = 'firing' AND look_at_us IS NOT NULL;
CREATE INDEX alerts_critical ON alerts (subject, kind) WHERE state <> 'resolved' AND level = 'CRITICAL';
CREATE INDEX alerts_withheld ON alerts (subject, kind) WHERE state = 'firing' AND withheld IS NOT NULL;

-- Why an alert was told, to whom and with which delivery, or why it was not.
CREATE TABLE alert_notices (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    alert_id TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    at_us INTEGER NOT NULL,
    event TEXT NOT NULL,
    sink TEXT NOT NULL,
    recipient TEXT NOT NULL,
    delivery_id TEXT,
    reason TEXT NOT NULL,
    detail TEXT
) STRICT;
CREATE INDEX alert_notices_alert ON alert_notices (alert_id, id);
CREATE INDEX alert_notices_delivery ON alert_notices (delivery_id) WHERE delivery_id IS NOT NULL;

-- Of what is open already nobody wrote down who was told: its end is told as it was before, and it is not told anew.
INSERT INTO alert_notices (alert_id, at_us, event, sink, recipient, reason)
SELECT id, opened_at_us, 'firing', '', '', 'earlier' FROM alerts WHERE state <> 'resolved';

-- What each group of a route has told one sink and recipient lately: by it notices are spaced out and folded, over a restart too.
CREATE TABLE alert_groups (
    channel TEXT NOT NULL,
    name TEXT NOT NULL,
    last_at_us INTEGER NOT NULL,
    window_from_us INTEGER NOT NULL,
    told INTEGER NOT NULL,
    waiting TEXT NOT NULL,
    digest_id TEXT,
    digest_at_us INTEGER NOT NULL,
    PRIMARY KEY (channel, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX alert_groups_last ON alert_groups (last_at_us);

-- Which alerts are not told for a while, by whose word and why.
CREATE TABLE silences (
    id TEXT PRIMARY KEY NOT NULL,
    matchers TEXT NOT NULL,
    starts_at_us INTEGER NOT NULL,
    ends_at_us INTEGER NOT NULL,
    reason TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    expired_at_us INTEGER,
    expired_by TEXT
) STRICT;
CREATE INDEX silences_end ON silences (ends_at_us) WHERE expired_at_us IS NULL;
CREATE INDEX silences_newest ON silences (created_at_us, id);
