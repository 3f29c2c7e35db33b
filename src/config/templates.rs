//! The user's own texts: what is in the folder `templates.dir`, read with the configuration so that both change together. In: the
//! folder. Out: text by file name, or faults. Whether they are good templates is for the sinks to say, which know what they mean.

use std::collections::BTreeMap;

use super::{
    resolve::{Files, Report, Resolved},
    value::{Value, Wrong},
};

/// What the name of a template ends in; other files in the folder are left alone.
pub const TEMPLATE_ENDING: &str = ".jinja";
/// Most templates in the folder; there are not that many names.
const FILES_MAX: usize = 100;
/// Largest template, bytes.
const FILE_MAX_BYTES: usize = 64 * 1024;

/// Reads the folder. Every fault stands at `templates.dir`.
pub(super) fn read(resolved: &Resolved, files: &dyn Files, report: &mut Report) -> BTreeMap<String, String> {
    let Some(entry) = resolved.one("templates") else { return BTreeMap::new() };
    let Some(Value::Path(dir)) = entry.value("dir") else { return BTreeMap::new() };
    let mut fault = |wrong: Wrong| report.add(entry.place_of("dir"), entry.key_path("dir"), wrong);
    let names = match files.list(dir) {
        Ok(names) => names,
        Err(error) => {
            fault(format!("cannot read {}: {error}", dir.display()).into());
            return BTreeMap::new();
        }
    };
    // Editors leave their own files behind, which begin with a point.
    let wanted = |name: &String| name.ends_with(TEMPLATE_ENDING) && !name.starts_with('.');
    let mut texts = BTreeMap::new();
    for name in names.into_iter().filter(wanted) {
        if texts.len() == FILES_MAX {
            fault(format!("has more than {FILES_MAX} templates").into());
            break;
        }
        match files.read(&dir.join(&name)) {
            Ok(text) if text.len() > FILE_MAX_BYTES => {
                fault(format!("{} is larger than {FILE_MAX_BYTES} bytes", dir.join(&name).display()).into());
            }
            Ok(text) => drop(texts.insert(name, text)),
            Err(error) => fault(format!("cannot read {}: {error}", dir.join(&name).display()).into()),
        }
    }
    texts
}
