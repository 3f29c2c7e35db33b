DROP TABLE reading_failures;
DROP TABLE batches;
DROP TABLE readings;
DROP TABLE streams;
