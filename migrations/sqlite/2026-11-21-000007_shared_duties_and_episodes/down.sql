DROP TABLE episodes;
DROP TABLE duties;
