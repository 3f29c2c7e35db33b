DROP TABLE issue_events;
DROP TABLE issues;
