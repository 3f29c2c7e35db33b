DROP INDEX deliveries_taken;
DROP INDEX deliveries_ready;
CREATE INDEX deliveries_claim ON deliveries (sink, due_at_us, seq) WHERE state = 'ready';
CREATE INDEX deliveries_lane ON deliveries (sink, lane, seq) WHERE state IN ('ready', 'claimed', 'sending', 'retry');
DROP TABLE delivery_attempts;
