-- What was deleted, by whomever, so that the integrity check can tell a deletion from a loss.
CREATE TABLE removed_readings (
    stream_no INTEGER NOT NULL,
    part      INTEGER NOT NULL,
    gone      INTEGER NOT NULL,
    PRIMARY KEY (stream_no, part)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER readings_removed AFTER DELETE ON readings BEGIN
    INSERT INTO removed_readings (stream_no, part, gone) VALUES (old.stream_no, old.seq / 65536, 1)
    ON CONFLICT (stream_no, part) DO UPDATE SET gone = gone + 1;
END;
-- Nobody has counted what was deleted before: numbers up to here are not compared.
ALTER TABLE streams ADD COLUMN watched_from INTEGER NOT NULL DEFAULT 0;
UPDATE streams SET watched_from = cursor_seq;
