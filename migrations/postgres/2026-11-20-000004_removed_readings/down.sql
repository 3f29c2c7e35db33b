ALTER TABLE streams DROP COLUMN watched_from;
DROP TRIGGER readings_truncated ON readings;
DROP TRIGGER readings_removed ON readings;
DROP FUNCTION belayd_note_truncated();
DROP FUNCTION belayd_note_removed();
DROP TABLE removed_readings;
