ALTER TABLE deliveries RENAME COLUMN lease_before_claims TO lease_until_us;
UPDATE deliveries AS d SET state = 'sending', epoch = d.epoch + 1, attempt = d.attempt + 1, claimed_by = c.worker,
    lease_until_us = c.lease_until_us, updated_at_us = c.claimed_at_us
FROM delivery_claims AS c CROSS JOIN LATERAL unnest(c.seqs, c.epochs) AS h(seq, epoch)
WHERE d.seq = h.seq AND d.epoch = h.epoch AND d.state = 'ready';
CREATE INDEX deliveries_lease ON deliveries (lease_until_us) WHERE state IN ('claimed', 'sending');
DROP TABLE delivery_turns;
DROP TABLE delivery_claims;
