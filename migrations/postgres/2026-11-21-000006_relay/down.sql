ALTER TABLE batches DROP COLUMN relay;
DROP TABLE relay_engines;
DROP TABLE delivery_bodies;
