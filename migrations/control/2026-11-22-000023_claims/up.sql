-- What workers hold, one row for all that was claimed together: a claim writes this row and leaves its deliveries as they are. A
-- delivery is held where its number stands here beside the epoch that it has; each end of an attempt gives it the next one.
CREATE TABLE delivery_claims (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    sink           TEXT NOT NULL,
    worker         TEXT NOT NULL,
    claimed_at_us  INTEGER NOT NULL,
    lease_until_us INTEGER NOT NULL,
    remaining      INTEGER NOT NULL,
    seqs           TEXT NOT NULL,
    epochs         TEXT NOT NULL
) STRICT;
INSERT INTO delivery_claims (sink, worker, claimed_at_us, lease_until_us, remaining, seqs, epochs)
SELECT sink, COALESCE(claimed_by, ''), MIN(updated_at_us), COALESCE(MIN(lease_until_us), 0), COUNT(*),
       json_group_array(seq), json_group_array(epoch - 1)
FROM (SELECT * FROM deliveries WHERE state IN ('claimed', 'sending') AND sink <> 'kafka' ORDER BY seq) GROUP BY sink, COALESCE(claimed_by, '');
UPDATE deliveries SET state = 'ready', epoch = epoch - 1, attempt = attempt - 1, claimed_by = NULL, lease_until_us = NULL
WHERE state IN ('claimed', 'sending') AND sink <> 'kafka';
DROP INDEX deliveries_lease;
-- A build from before cannot claim without this column: it would send once more what is held here. Renamed, it keeps its place, by which
-- backups are put back after a revert.
ALTER TABLE deliveries RENAME COLUMN lease_until_us TO lease_before_claims;
