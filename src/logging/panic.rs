//! Panics as lines of the log: one error with actor and location instead of a raw text in the middle of it.

use std::panic::{self, PanicHookInfo};

use crate::supervise::current_actor;

/// Installs the hook. Where nothing logs (yet), the previous hook speaks.
pub fn install_panic_hook() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if log::max_level() >= log::LevelFilter::Error {
            report(info);
        } else {
            previous(info);
        }
    }));
}

fn report(info: &PanicHookInfo<'_>) {
    let message = info.payload_as_str().unwrap_or("a panic without a text");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let current = std::thread::current();
    let who = current_actor().or(current.name()).unwrap_or("unnamed");
    // Costs milliseconds, so only where it is asked for.
    let backtrace = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    if backtrace {
        let backtrace = std::backtrace::Backtrace::force_capture();
        log::error!(target: "belayd::panic", actor = who, location = location, backtrace:% = backtrace; "panicked: {message}");
    } else {
        log::error!(target: "belayd::panic", actor = who, location = location; "panicked: {message}");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use crate::{
        config::{LogConfig, LogFormat},
        logging,
    };

    /// Not a test by itself: the process that [`a_panic_is_one_line_with_actor_and_location`] looks at.
    #[test]
    #[ignore = "run by the test below, in a process of its own"]
    fn child() {
        let config = LogConfig { format: LogFormat::Logfmt, level: "info".into(), file: None, rotate_bytes: 0, keep_files: 0 };
        logging::init(&config).unwrap();
        assert!(logging::init(&config).is_err(), "a second logger is refused");
        let thread = std::thread::Builder::new().name("drain".into());
        let _ = thread.spawn(|| panic!("two\nlines")).unwrap().join();
    }

    #[test]
    fn a_panic_is_one_line_with_actor_and_location() {
        let this = std::env::current_exe().unwrap();
        let arguments = ["--exact", "logging::panic::tests::child", "--ignored", "--nocapture"];
        let output = Command::new(this).args(arguments).env("RUST_BACKTRACE", "0").env_remove("JOURNAL_STREAM").output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| line.contains("panic")).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert!(
            lines[0].contains(r#"level=error target=belayd::panic msg="panicked: two\nlines" actor=drain location=src/"#),
            "{text}"
        );
    }
}
