DROP INDEX deliveries_failed_group;
DROP INDEX deliveries_failed_cause;
DROP INDEX deliveries_failed_state;
DROP INDEX deliveries_failed_sink;
DROP INDEX alerts_unresolved;
DROP INDEX alerts_name;
DROP INDEX alerts_subject;
