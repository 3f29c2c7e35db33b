ALTER TABLE streams DROP COLUMN watched_from;
DROP TRIGGER readings_removed;
DROP TABLE removed_readings;
