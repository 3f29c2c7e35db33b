//! Any text as configuration: it loads or every fault has words; nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(faults) = belayd::config::parse(text) {
        assert!(!faults.0.is_empty());
        for fault in &faults.0 {
            assert!(!fault.message.is_empty());
            let _ = fault.to_string();
        }
    }
});
