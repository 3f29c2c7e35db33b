-- Attempts of deliveries that did not succeed at the first go; a success at the first go stands in the delivery itself.
CREATE TABLE delivery_attempts (
    delivery_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    worker TEXT NOT NULL,
    began_at_us INTEGER NOT NULL,
    ended_at_us INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    error_type TEXT,
    error TEXT,
    answer TEXT,
    PRIMARY KEY (delivery_id, epoch)
) STRICT, WITHOUT ROWID;
-- Claims walk through what is ready lane by lane, and look whether a lane is held up.
DROP INDEX deliveries_claim;
DROP INDEX deliveries_lane;
CREATE INDEX deliveries_ready ON deliveries (sink, lane, seq) WHERE state = 'ready';
CREATE INDEX deliveries_taken ON deliveries (sink, lane, seq) WHERE state IN ('claimed', 'sending', 'retry');
