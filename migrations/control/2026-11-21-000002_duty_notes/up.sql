-- What a periodic duty keeps over a restart: how far an unfinished run has come, what the last whole one found.
CREATE TABLE duty_notes (
    name TEXT PRIMARY KEY NOT NULL,
    note TEXT NOT NULL,
    updated_at_us INTEGER NOT NULL
) STRICT;
