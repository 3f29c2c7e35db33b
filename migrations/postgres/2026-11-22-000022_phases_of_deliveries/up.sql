-- What a claim changes stands in no index any more, so that PostgreSQL writes a claim beside the row's old version and touches no index
-- (a heap-only tuple): half of each page is left free for that. `phase` is what the indexes need to know of the state; it stays the same
-- from `ready` to `sending`. Runs to Kafka are few and have a phase of their own, because theirs are looked up while they are under way.
ALTER TABLE deliveries SET (fillfactor = 50);
DROP INDEX deliveries_ready;
DROP INDEX deliveries_taken;
DROP INDEX deliveries_due;
DROP INDEX deliveries_lease;
DROP INDEX deliveries_failed;
DROP INDEX deliveries_settled;
DROP INDEX deliveries_failed_sink;
DROP INDEX deliveries_failed_state;
DROP INDEX deliveries_failed_cause;
DROP INDEX deliveries_failed_group;
ALTER TABLE deliveries
    ADD COLUMN phase TEXT COLLATE "C" GENERATED ALWAYS AS (CASE
        WHEN state = 'ready' THEN 'turn'
        WHEN state IN ('claimed', 'sending') THEN CASE WHEN sink = 'kafka' THEN 'run' ELSE 'turn' END
        WHEN state IN ('sent', 'discarded', 'cancelled') THEN 'over'
        ELSE state END) STORED,
    ADD COLUMN failed_at_us BIGINT GENERATED ALWAYS AS (CASE WHEN state IN ('uncertain', 'dead') THEN updated_at_us END) STORED;
CREATE INDEX deliveries_turn ON deliveries (sink, lane, seq) WHERE phase = 'turn';
CREATE INDEX deliveries_held ON deliveries (sink, lane, seq) WHERE phase IN ('run', 'retry');
CREATE INDEX deliveries_due ON deliveries (due_at_us) WHERE phase IN ('scheduled', 'retry');
CREATE INDEX deliveries_failed ON deliveries (seq) WHERE phase IN ('uncertain', 'dead');
CREATE INDEX deliveries_failed_sink ON deliveries (sink, seq) WHERE phase IN ('uncertain', 'dead');
CREATE INDEX deliveries_failed_state ON deliveries (phase, seq) WHERE phase IN ('uncertain', 'dead');
CREATE INDEX deliveries_failed_cause ON deliveries (last_error_type, seq) WHERE phase IN ('uncertain', 'dead');
-- All that the groups of failures are made of: they are counted without a look at the rows.
CREATE INDEX deliveries_failed_group ON deliveries (sink, last_error_type, phase, failed_at_us, seq) WHERE phase IN ('uncertain', 'dead');
CREATE INDEX deliveries_settled ON deliveries (settled_at_us) WHERE phase = 'over';
