-- PostgreSQL compares with a list as quickly as with words that are spelled out; nothing changes here.
SELECT 1;
