-- The columns are there for whoever queries either store: SQLite writes a row and its indexes in place, and its indexes name the states.
ALTER TABLE deliveries ADD COLUMN phase TEXT GENERATED ALWAYS AS (CASE
    WHEN state = 'ready' THEN 'turn'
    WHEN state IN ('claimed', 'sending') THEN CASE WHEN sink = 'kafka' THEN 'run' ELSE 'turn' END
    WHEN state IN ('sent', 'discarded', 'cancelled') THEN 'over'
    ELSE state END) VIRTUAL;
ALTER TABLE deliveries ADD COLUMN failed_at_us INTEGER GENERATED ALWAYS AS (CASE WHEN state IN ('uncertain', 'dead') THEN updated_at_us END) VIRTUAL;
