-- SQLite has no partitions: what is too old is deleted in slices, and the file keeps the room for what comes.
SELECT 1;
