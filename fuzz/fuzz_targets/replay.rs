//! Any bytes as a recorded file in each of its formats: they are read or refused with a line and a word; nothing panics.
#![no_main]

use belayd::sim::replay::{Format, count_readings};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((mode, bytes)) = data.split_first() else { return };
    let format = [Format::Csv, Format::Ndjson, Format::Cmapss][usize::from(mode % 3)];
    if let Err(error) = count_readings(bytes, format) {
        assert!(!error.message.is_empty());
    }
});
