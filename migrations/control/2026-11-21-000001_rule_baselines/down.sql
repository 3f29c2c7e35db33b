DROP TABLE rule_baselines;
