//! NASA C-MAPSS: engines run to failure. The half with the lower numbers was used to choose the rule's limits, the other judges.

use std::{collections::BTreeMap, path::Path};

use belayd::{
    domain::anomaly::AnomalyRule,
    ingest::engines::EngineTable,
    sim::{
        replay::{Format, Mapping, Recording},
        sample::Sample,
    },
};

use crate::{
    Pushes,
    judge::{Judgement, Life},
};

/// 2025-01-01T00:00:00Z
const START_US: i64 = 1_735_689_600_000_000;

pub(crate) fn run(dir: &Path, rule: &AnomalyRule) {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("train_")))
        .collect();
    files.sort();
    for path in files {
        let lives = live(&path, rule);
        let half = lives.len() / 2;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Judgement::of(lives.iter().take(half)).print(&format!("{name}, engines 1 to {half} (tuned on)"));
        Judgement::of(lives.iter().skip(half)).print(&format!("{name}, engines {} to {} (judged on)", half + 1, lives.len()));
    }
}

/// Streams every engine's cycles in order through the table.
fn live(path: &Path, rule: &AnomalyRule) -> Vec<Life> {
    let mapping = Mapping { start_us: START_US, step_us: 1_000_000 };
    let recording = Recording { path: path.to_owned(), format: Format::Cmapss, mapping };
    let mut reader = recording.open().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let table = EngineTable::with_anomalies(&[], std::slice::from_ref(rule), 1_000, Vec::new(), Vec::new());
    let mut pushes = Pushes::new();
    let mut lives: BTreeMap<u32, Life> = BTreeMap::new();
    let mut open: BTreeMap<u32, bool> = BTreeMap::new();
    let mut sample = Sample::default();
    while reader.read_into(&mut sample).unwrap_or_else(|error| panic!("{}", recording.explain(&error))) {
        let unit: u32 = sample.engine_id.parse().expect("a unit");
        let life = lives.entry(unit).or_default();
        let open = open.entry(unit).or_default();
        let transitions = table.observe(&pushes.batch(std::slice::from_ref(&sample)));
        let graver = transitions.len() == 2;
        for transition in transitions {
            if transition.firing {
                life.starts.push(life.readings);
                if !graver {
                    life.first_starts.push(life.readings);
                }
            }
            *open = transition.firing;
        }
        life.open.push(*open);
        life.readings += 1;
    }
    println!("{}: {} bytes a detector on average\n", path.display(), table.detector_bytes() / lives.len().max(1));
    lives.into_values().collect()
}
