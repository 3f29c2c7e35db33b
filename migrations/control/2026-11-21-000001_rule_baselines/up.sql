-- What each anomaly rule learned of each engine, written once when it has been learned.
CREATE TABLE rule_baselines (
    rule TEXT NOT NULL,
    engine_id TEXT NOT NULL,
    baseline TEXT NOT NULL,
    updated_at_us INTEGER NOT NULL,
    PRIMARY KEY (rule, engine_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX rule_baselines_newest ON rule_baselines (updated_at_us);
