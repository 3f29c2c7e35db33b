-- Attempts of deliveries that did not succeed at the first go; a success at the first go stands in the delivery itself.
CREATE TABLE delivery_attempts (
    delivery_id TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    attempt INTEGER NOT NULL,
    worker TEXT NOT NULL,
    began_at_us BIGINT NOT NULL,
    ended_at_us BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    error_type TEXT,
    error TEXT,
    answer TEXT,
    PRIMARY KEY (delivery_id, epoch)
);
-- Claims walk through what is ready lane by lane, and look whether a lane is held up. Lanes are compared by their bytes, as belayd does.
DROP INDEX deliveries_claim;
DROP INDEX deliveries_lane;
ALTER TABLE deliveries ALTER COLUMN sink TYPE TEXT COLLATE "C", ALTER COLUMN lane TYPE TEXT COLLATE "C";
CREATE INDEX deliveries_ready ON deliveries (sink, lane, seq) WHERE state = 'ready';
CREATE INDEX deliveries_taken ON deliveries (sink, lane, seq) WHERE state IN ('claimed', 'sending', 'retry');
