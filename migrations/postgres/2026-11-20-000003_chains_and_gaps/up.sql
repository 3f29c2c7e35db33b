-- What stands for every reading up to the cursor, so that another history under the same numbers is recognised; and numbers that have
-- no reading. A batch with a gap holds no readings: `gap` says why, `missing` how many of its numbers had been acknowledged.
ALTER TABLE streams ADD COLUMN cursor_chain BIGINT NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN quarantined BIGINT NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN void BIGINT NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN lost BIGINT NOT NULL DEFAULT 0;
ALTER TABLE batches DROP COLUMN checksum;
ALTER TABLE batches ADD COLUMN gap TEXT CHECK (gap IN ('quarantined', 'void', 'lost'));
ALTER TABLE batches ADD COLUMN missing BIGINT NOT NULL DEFAULT 0;
ALTER TABLE streams DROP CONSTRAINT streams_closing_check;
ALTER TABLE streams ADD CONSTRAINT streams_closing_check CHECK (closing IN ('drained', 'cut', 'forked'));
