-- Messages to people, as they were asked for; each recipient has a delivery of its own in `deliveries`.
CREATE TABLE messages (
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    via           TEXT NOT NULL,
    subject       TEXT NOT NULL,
    send_at_us    BIGINT,
    created_by    TEXT NOT NULL,
    created_at_us BIGINT NOT NULL,
    reply_to      TEXT,
    body          TEXT NOT NULL,
    html          TEXT
);
CREATE INDEX messages_newest ON messages (created_at_us, id);
-- Which deliveries are a message's. `recipient` is folded to lower case, for looking it up.
CREATE TABLE message_deliveries (
    message_id    TEXT COLLATE "C" NOT NULL,
    no            BIGINT NOT NULL,
    delivery_id   TEXT NOT NULL,
    recipient     TEXT COLLATE "C" NOT NULL,
    created_at_us BIGINT NOT NULL,
    PRIMARY KEY (message_id, no)
);
CREATE INDEX message_deliveries_recipient ON message_deliveries (recipient, created_at_us, message_id);
-- What goes with a message, read just before it is sent.
CREATE TABLE message_attachments (
    message_id    TEXT COLLATE "C" NOT NULL,
    no            BIGINT NOT NULL,
    name          TEXT NOT NULL,
    content_type  TEXT NOT NULL,
    bytes         BIGINT NOT NULL,
    sha256        TEXT NOT NULL,
    content       BYTEA NOT NULL,
    PRIMARY KEY (message_id, no)
);
-- Who asked for a message, and who called it off, in the transaction of the act itself.
CREATE TABLE message_events (
    message_id    TEXT COLLATE "C" NOT NULL,
    no            BIGINT NOT NULL,
    at_us         BIGINT NOT NULL,
    event         TEXT NOT NULL,
    actor         TEXT NOT NULL,
    reason        TEXT,
    PRIMARY KEY (message_id, no)
);
-- The same key of the same caller makes one message.
CREATE TABLE idempotency_keys (
    owner         TEXT COLLATE "C" NOT NULL,
    key           TEXT COLLATE "C" NOT NULL,
    content       TEXT NOT NULL,
    message_id    TEXT COLLATE "C" NOT NULL,
    created_at_us BIGINT NOT NULL,
    PRIMARY KEY (owner, key)
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at_us);
