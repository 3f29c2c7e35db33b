-- Which delivery to Kafka carries what a ledger row stored; null for rows from before this column, and where nothing is relayed.
ALTER TABLE batches ADD COLUMN delivery TEXT;
