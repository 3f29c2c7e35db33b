-- Lists of alerts by what people look for, and failures by sink, state and cause: each page reads a piece of an index.
CREATE INDEX alerts_subject ON alerts (subject, opened_at_us, id);
CREATE INDEX alerts_name ON alerts (name, opened_at_us, id);
CREATE INDEX alerts_unresolved ON alerts (opened_at_us, id) WHERE state <> 'resolved';
CREATE INDEX deliveries_failed_sink ON deliveries (sink, seq) WHERE state IN ('uncertain', 'dead');
CREATE INDEX deliveries_failed_state ON deliveries (state, seq) WHERE state IN ('uncertain', 'dead');
CREATE INDEX deliveries_failed_cause ON deliveries (last_error_type, seq) WHERE state IN ('uncertain', 'dead');
-- All that the groups of failures are made of: they are counted without a look at the rows.
CREATE INDEX deliveries_failed_group ON deliveries (sink, last_error_type, state, updated_at_us, seq) WHERE state IN ('uncertain', 'dead');
