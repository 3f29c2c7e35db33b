//! A delivery: one row of an outbox, its states and the legal moves between them.
