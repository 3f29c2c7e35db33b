-- Messages to people, as they were asked for; each recipient has a delivery of its own in `deliveries`.
CREATE TABLE messages (
    id            TEXT NOT NULL PRIMARY KEY,
    via           TEXT NOT NULL,
    subject       TEXT NOT NULL,
    send_at_us    INTEGER,
    created_by    TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    reply_to      TEXT,
    body          TEXT NOT NULL,
    html          TEXT
) STRICT;
CREATE INDEX messages_newest ON messages (created_at_us, id);
-- Which deliveries are a message's. `recipient` is folded to lower case, for looking it up.
CREATE TABLE message_deliveries (
    message_id    TEXT NOT NULL,
    no            INTEGER NOT NULL,
    delivery_id   TEXT NOT NULL,
    recipient     TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    PRIMARY KEY (message_id, no)
) STRICT, WITHOUT ROWID;
CREATE INDEX message_deliveries_recipient ON message_deliveries (recipient, created_at_us, message_id);
-- What goes with a message, read just before it is sent.
CREATE TABLE message_attachments (
    message_id    TEXT NOT NULL,
    no            INTEGER NOT NULL,
    name          TEXT NOT NULL,
    content_type  TEXT NOT NULL,
    bytes         INTEGER NOT NULL,
    sha256        TEXT NOT NULL,
    content       BLOB NOT NULL,
    PRIMARY KEY (message_id, no)
) STRICT;
-- Who asked for a message, and who called it off, in the transaction of the act itself.
CREATE TABLE message_events (
    message_id    TEXT NOT NULL,
    no            INTEGER NOT NULL,
    at_us         INTEGER NOT NULL,
    event         TEXT NOT NULL,
    actor         TEXT NOT NULL,
    reason        TEXT,
    PRIMARY KEY (message_id, no)
) STRICT, WITHOUT ROWID;
-- The same key of the same caller makes one message.
CREATE TABLE idempotency_keys (
    owner         TEXT NOT NULL,
    key           TEXT NOT NULL,
    content       TEXT NOT NULL,
    message_id    TEXT NOT NULL,
    created_at_us INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at_us);
