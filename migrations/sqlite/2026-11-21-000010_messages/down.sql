DROP TABLE idempotency_keys;
DROP TABLE message_events;
DROP TABLE message_attachments;
DROP TABLE message_deliveries;
DROP TABLE messages;
