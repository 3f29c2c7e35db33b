-- What a relay to Kafka needs: the readings of a delivery, apart from the row whose state changes; whether a batch has a delivery; and
-- the number of partitions that decides where an engine's readings go.
CREATE TABLE delivery_bodies (
    delivery_id TEXT NOT NULL PRIMARY KEY,
    lane        TEXT NOT NULL,
    first_seq   INTEGER NOT NULL,
    last_seq    INTEGER NOT NULL,
    readings    INTEGER NOT NULL,
    body        BLOB NOT NULL
) STRICT;
CREATE INDEX delivery_bodies_numbers ON delivery_bodies (lane, last_seq);
CREATE TABLE relay_engines (
    topic      TEXT NOT NULL,
    engine_id  TEXT NOT NULL,
    partitions INTEGER NOT NULL,
    PRIMARY KEY (topic, engine_id)
) STRICT, WITHOUT ROWID;
ALTER TABLE batches ADD COLUMN relay INTEGER NOT NULL DEFAULT 0;
