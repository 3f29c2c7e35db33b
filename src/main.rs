//! The `belayd` binary: everything is in the library.

fn main() {}
