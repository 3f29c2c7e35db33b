ALTER TABLE deliveries DROP COLUMN answer;
ALTER TABLE deliveries DROP COLUMN recipient;
