//! Secrets: given as they are (`url`, `password`), in a file (`url_file`), or as a systemd credential (`url_credential`).

use std::path::{Path, PathBuf};

use super::{
    fault::Place,
    keys::Kind,
    node::{Item, Node},
    resolve::{Entry, Ground, Report, settle},
    value::{Value, Wrong, convert},
};

/// The ways to give each secret; the first is the key that has it afterwards.
const SECRETS: [[&str; 3]; 4] = [
    ["url", "url_file", "url_credential"],
    ["password", "password_file", "password_credential"],
    ["secret", "secret_file", "secret_credential"],
    ["token", "token_file", "token_credential"],
];

/// Whether a key only says where a secret is.
pub(super) fn is_way(key: &str) -> bool {
    SECRETS.iter().any(|ways| ways[1..].contains(&key))
}

/// Whether `one` and `other` are two ways to give the same secret.
pub(super) fn replaces(one: &str, other: &str) -> bool {
    one != other && SECRETS.iter().any(|ways| ways.contains(&one) && ways.contains(&other))
}

/// Most bytes of a file that holds a secret.
const SECRET_MAX_BYTES: usize = 64 * 1024;

/// Puts each secret of an entry under its first key, wherever it was given. `seen` are the keys that were written, good or bad.
pub(super) fn resolve_secrets(entry: &mut Entry, seen: &[&'static str], ground: &Ground<'_>, report: &mut Report) {
    for ways in SECRETS {
        resolve_one(entry, ways, seen, ground, report);
    }
}

fn resolve_one(entry: &mut Entry, ways: [&'static str; 3], seen: &[&'static str], ground: &Ground<'_>, report: &mut Report) {
    let name = ways[0];
    let Some(key) = entry.section.key(name) else { return };
    let given: Vec<_> = ways.into_iter().filter(|way| seen.contains(way)).collect();
    match given.as_slice() {
        // A list of sources or receivers is one of URLs; whatever else is secret may be left out.
        [] if entry.section.is_list() && name == "url" => {
            let hint = format!("add {}, {} or {}", ways[0], ways[1], ways[2]);
            report.add(&entry.place, entry.key_path(name), Wrong::hint("is missing", hint));
        }
        [] => {}
        [way] if *way == name => {}
        [way] => {
            let Some((named, place)) = entry.values.get(way).cloned() else { return };
            match read(&named, key.kind, &place, ground) {
                Ok(secret) => {
                    entry.values.insert(name, (secret, place));
                }
                Err(wrong) => report.add(&place, entry.key_path(way), wrong),
            }
        }
        [first, rest @ ..] => {
            for way in rest {
                report.add(
                    entry.place_of(way),
                    entry.key_path(way),
                    Wrong::hint(format!("given beside \"{first}\""), "keep one of them"),
                );
            }
        }
    }
}

fn read(named: &Value, kind: Kind, place: &Place, ground: &Ground<'_>) -> Result<Value, Wrong> {
    let path = match named {
        Value::Path(path) => path.clone(),
        Value::Text(name) => credential(name, ground)?,
        _ => return Err("names no file".into()),
    };
    let text = ground.files.read(&path).map_err(|error| Wrong::from(format!("cannot read {}: {error}", path.display())))?;
    if text.len() > SECRET_MAX_BYTES {
        return Err(format!("{} is larger than {SECRET_MAX_BYTES} bytes", path.display()).into());
    }
    let line = text.lines().next().unwrap_or_default().trim().to_owned();
    let inside = |wrong: Wrong| Wrong { message: format!("what is in {}: {}", path.display(), wrong.message), ..wrong };
    let value = convert(kind, &Item { node: Node::Text(line), place: place.clone() }).map_err(inside)?;
    settle(kind, value, path.parent().unwrap_or(Path::new("")), ground.files)
}

fn credential(name: &str, ground: &Ground<'_>) -> Result<PathBuf, Wrong> {
    if name.contains('/') || name == ".." || name == "." {
        return Err(format!("{name:?} is not the name of a credential").into());
    }
    let missing = || {
        Wrong::hint(
            "there are no credentials here",
            "start it under systemd with LoadCredential=, which sets CREDENTIALS_DIRECTORY",
        )
    };
    ground.credentials_dir.as_ref().map(|dir| dir.join(name)).ok_or_else(missing)
}
