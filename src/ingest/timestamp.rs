//! Duty: times as readings give them, as microseconds since the epoch. Pure: a crash loses nothing.
