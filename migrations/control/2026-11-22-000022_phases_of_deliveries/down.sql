ALTER TABLE deliveries DROP COLUMN failed_at_us;
ALTER TABLE deliveries DROP COLUMN phase;
