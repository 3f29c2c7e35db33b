DROP TABLE duty_notes;
