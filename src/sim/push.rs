//! The pusher.
