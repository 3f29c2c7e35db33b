ALTER TABLE deliveries RENAME COLUMN lease_before_claims TO lease_until_us;
UPDATE deliveries AS d SET state = 'sending', epoch = d.epoch + 1, attempt = d.attempt + 1, claimed_by = h.worker,
    lease_until_us = h.lease_until_us, updated_at_us = h.claimed_at_us
FROM (SELECT c.worker, c.lease_until_us, c.claimed_at_us, s.value AS seq, e.value AS epoch
      FROM delivery_claims AS c, json_each(c.seqs) AS s JOIN json_each(c.epochs) AS e ON e.key = s.key) AS h
WHERE d.seq = h.seq AND d.epoch = h.epoch AND d.state = 'ready';
CREATE INDEX deliveries_lease ON deliveries (lease_until_us) WHERE state IN ('claimed', 'sending');
DROP TABLE delivery_turns;
DROP TABLE delivery_claims;
