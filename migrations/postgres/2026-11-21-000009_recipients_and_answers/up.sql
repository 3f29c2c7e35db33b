-- To whom a delivery goes (an address, a room; empty where the sink itself is the receiver), and what the receiver answered.
ALTER TABLE deliveries ADD COLUMN recipient TEXT NOT NULL DEFAULT '';
ALTER TABLE deliveries ADD COLUMN answer TEXT;
