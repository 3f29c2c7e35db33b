-- For a list of three words SQLite builds a table with every row that it writes; spelled out it compares.
DROP INDEX deliveries_taken;
DROP INDEX deliveries_settled;
CREATE INDEX deliveries_taken ON deliveries (sink, lane, seq) WHERE (state = 'claimed' OR state = 'sending' OR state = 'retry');
CREATE INDEX deliveries_settled ON deliveries (settled_at_us) WHERE (state = 'sent' OR state = 'discarded' OR state = 'cancelled');
