DROP INDEX deliveries_settled;
DROP INDEX deliveries_taken;
CREATE INDEX deliveries_taken ON deliveries (sink, lane, seq) WHERE state IN ('claimed', 'sending', 'retry');
CREATE INDEX deliveries_settled ON deliveries (settled_at_us) WHERE state IN ('sent', 'discarded', 'cancelled');
