-- Lists of messages by sink, and of failures by sink, state and cause: each page reads a piece of an index.
CREATE INDEX messages_via ON messages (via, created_at_us, id);
CREATE INDEX deliveries_failed_sink ON deliveries (sink, seq) WHERE state IN ('uncertain', 'dead');
CREATE INDEX deliveries_failed_state ON deliveries (state, seq) WHERE state IN ('uncertain', 'dead');
CREATE INDEX deliveries_failed_cause ON deliveries (last_error_type, seq) WHERE state IN ('uncertain', 'dead');
-- All that the groups of failures are made of: they are counted without a look at the rows.
CREATE INDEX deliveries_failed_group ON deliveries (sink, last_error_type, state, updated_at_us, seq) WHERE state IN ('uncertain', 'dead');
