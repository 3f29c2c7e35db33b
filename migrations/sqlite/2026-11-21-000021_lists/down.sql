DROP INDEX deliveries_failed_group;
DROP INDEX deliveries_failed_cause;
DROP INDEX deliveries_failed_state;
DROP INDEX deliveries_failed_sink;
DROP INDEX messages_via;
