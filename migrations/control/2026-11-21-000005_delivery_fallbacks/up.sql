-- Deliveries of alerts that were copied to the fallback of their sink: once.
CREATE TABLE delivery_fallbacks (
    delivery_id TEXT PRIMARY KEY NOT NULL,
    copy_id TEXT NOT NULL UNIQUE,
    at_us INTEGER NOT NULL
) STRICT;
