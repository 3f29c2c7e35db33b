DROP TABLE instances;
DROP TABLE leases;
