ALTER TABLE batches DROP COLUMN delivery;
