//! The source to poll.
