-- What was deleted, by whomever, so that the integrity check can tell a deletion from a loss. It is only added to: a long DELETE of a
-- person's must not hold a row that the drain needs. The check folds it.
CREATE TABLE removed_readings (
    stream_no BIGINT NOT NULL,
    part      BIGINT NOT NULL,
    gone      BIGINT NOT NULL
);
CREATE OR REPLACE FUNCTION belayd_note_removed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO removed_readings (stream_no, part, gone) SELECT stream_no, seq / 65536, count(*) FROM old_rows GROUP BY 1, 2;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION belayd_note_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO removed_readings (stream_no, part, gone) SELECT stream_no, seq / 65536, count(*) FROM readings GROUP BY 1, 2;
    RETURN NULL;
END $$;
CREATE TRIGGER readings_removed AFTER DELETE ON readings REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION belayd_note_removed();
CREATE TRIGGER readings_truncated BEFORE TRUNCATE ON readings FOR EACH STATEMENT EXECUTE FUNCTION belayd_note_truncated();
-- Nobody has counted what was deleted before: numbers up to here are not compared.
ALTER TABLE streams ADD COLUMN watched_from BIGINT NOT NULL DEFAULT 0;
UPDATE streams SET watched_from = cursor_seq;
