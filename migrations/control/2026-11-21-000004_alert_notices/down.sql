DROP TABLE silences;
DROP TABLE alert_groups;
DROP TABLE alert_notices;
DROP INDEX alerts_withheld;
DROP INDEX alerts_critical;
DROP INDEX alerts_look;
ALTER TABLE alerts DROP COLUMN look_at_us;
ALTER TABLE alerts DROP COLUMN withheld;
ALTER TABLE alerts DROP COLUMN labels;
