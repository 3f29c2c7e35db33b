-- Readings by the time at which they were observed, so that what is too old goes as a whole table. The table that was there becomes the
-- partition of everything up to the day after tomorrow: it is read once and not rewritten, and locked meanwhile. docs/DATABASE.md has more.
DROP TRIGGER readings_truncated ON readings;
DROP TRIGGER readings_removed ON readings;
-- A TRUNCATE of the whole runs the triggers of each partition: each counts its own.
CREATE OR REPLACE FUNCTION belayd_note_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO removed_readings (stream_no, part, gone) SELECT stream_no, seq / 65536, count(*) FROM %I.%I GROUP BY 1, 2',
                   TG_TABLE_SCHEMA, TG_TABLE_NAME);
    RETURN NULL;
END $$;
ALTER TABLE readings RENAME TO readings_before;
ALTER TABLE readings_before RENAME CONSTRAINT readings_pkey TO readings_before_pkey;
CREATE TABLE readings (
    engine_id      TEXT COLLATE "C" NOT NULL,
    observed_at_us BIGINT NOT NULL,
    status         TEXT,
    temperature    DOUBLE PRECISION,
    rpm            DOUBLE PRECISION,
    pressure       DOUBLE PRECISION,
    fuel_flow      DOUBLE PRECISION,
    extra          TEXT,
    stream_no      BIGINT NOT NULL,
    seq            BIGINT NOT NULL,
    created_at_us  BIGINT NOT NULL,
    updated_at_us  BIGINT,
    PRIMARY KEY (engine_id, observed_at_us)
) PARTITION BY RANGE (observed_at_us);
-- What no other partition takes: no reading is ever refused for its time.
CREATE TABLE readings_default PARTITION OF readings DEFAULT;
-- A statement runs the triggers of the table that it names, and of no other.
CREATE TRIGGER readings_removed AFTER DELETE ON readings REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION belayd_note_removed();
CREATE TRIGGER readings_removed AFTER DELETE ON readings_default REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION belayd_note_removed();
CREATE TRIGGER readings_truncated BEFORE TRUNCATE ON readings_default
    FOR EACH STATEMENT EXECUTE FUNCTION belayd_note_truncated();
DO $$
DECLARE
    bound bigint := (floor(extract(epoch FROM now()) / 86400)::bigint + 2) * 86400000000;
    attach text := format('ALTER TABLE readings ATTACH PARTITION readings_before FOR VALUES FROM (MINVALUE) TO (%s)', bound);
    may record;
BEGIN
    FOR may IN SELECT a.grantee, a.privilege_type FROM pg_class AS c, aclexplode(c.relacl) AS a
               WHERE c.oid = 'readings_before'::regclass AND a.grantee <> c.relowner LOOP
        EXECUTE format('GRANT %s ON readings TO %s', may.privilege_type,
                       CASE WHEN may.grantee = 0 THEN 'PUBLIC' ELSE may.grantee::regrole::text END);
    END LOOP;
    IF NOT EXISTS (SELECT 1 FROM readings_before) THEN
        DROP TABLE readings_before;
        RETURN;
    END IF;
    BEGIN
        EXECUTE attach;
    EXCEPTION WHEN check_violation THEN
        -- Clocks that ran ahead: few rows, which go where rows of no partition are.
        WITH ahead AS (DELETE FROM readings_before WHERE observed_at_us >= bound RETURNING *) INSERT INTO readings_default SELECT * FROM ahead;
        EXECUTE attach;
    END;
    CREATE TRIGGER readings_removed AFTER DELETE ON readings_before REFERENCING OLD TABLE AS old_rows
        FOR EACH STATEMENT EXECUTE FUNCTION belayd_note_removed();
    CREATE TRIGGER readings_truncated BEFORE TRUNCATE ON readings_before
        FOR EACH STATEMENT EXECUTE FUNCTION belayd_note_truncated();
END $$;
