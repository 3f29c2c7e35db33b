//! What tests need of the machine: where it is missing they are left out, and where CI is set they fail instead, since a test that is left
//! out there is seen by nobody.

#![allow(unreachable_pub, reason = "part of benchmarks as well")]

/// Whether it is there, as `is_met` says.
///
/// # Panics
/// It is not, and the variable CI is set to anything but nothing.
pub fn met(is_met: bool, what: &str) -> bool {
    assert!(is_met || !is_ci(), "{what}; without the variable CI this would be left out");
    is_met
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}
