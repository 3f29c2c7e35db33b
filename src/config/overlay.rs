//! What environment (`BELAYD__SECTION__KEY`) and flags (`--set section.key=value`) put over the file.

use super::{
    fault::Place,
    keys::{Kind, Section, section},
    node::{self, Item, Node, Table},
    resolve::{Report, unknown_key, unknown_section},
    secrets,
    value::Wrong,
};

/// What variables begin with.
pub(super) const PREFIX: &str = "BELAYD__";

/// One value that goes over the file.
struct Setting {
    /// Section, index where it is a list, key, and for tables the name within.
    path: Vec<String>,
    raw: String,
    place: Place,
}

/// Puts variables over the tree, in the order of their paths: a new entry of a list takes the next free index.
pub(super) fn apply_env(root: &mut Table, env: &[(String, String)], report: &mut Report) {
    let mut settings: Vec<_> = env
        .iter()
        .filter_map(|(name, raw)| {
            let path = name.strip_prefix(PREFIX)?.split("__").map(str::to_ascii_lowercase).collect();
            Some(Setting { path, raw: raw.clone(), place: Place::Env(name.clone()) })
        })
        .collect();
    settings.sort_by_cached_key(|setting| setting.path.iter().map(|part| format!("{part:0>8}")).collect::<Vec<_>>());
    for setting in settings {
        apply(root, &setting, report);
    }
}

/// Puts flags over the tree, in the order given.
pub(super) fn apply_flags(root: &mut Table, set: &[String], report: &mut Report) {
    for flag in set {
        let Some((path, raw)) = flag.split_once('=') else {
            report.add(&Place::Flag(shown(flag)), "", Wrong::hint("has no value", "write --set section.key=value"));
            continue;
        };
        let path = path.trim().replace('[', ".").replace(']', "").split('.').map(str::to_owned).collect();
        apply(root, &Setting { path, raw: raw.to_owned(), place: Place::Flag(shown(flag)) }, report);
    }
}

/// The flag without its value, which may be a secret.
fn shown(flag: &str) -> String {
    flag.split('=').next().unwrap_or_default().to_owned()
}

fn apply(root: &mut Table, setting: &Setting, report: &mut Report) {
    let parts: Vec<&str> = setting.path.iter().map(String::as_str).collect();
    let Some((name, rest)) = parts.split_first() else { return };
    let Some(section) = section(name) else {
        return report.add(&setting.place, parts.join("."), unknown_section(name));
    };
    let found = if section.is_list() {
        list_entry(root, section, rest, &setting.place)
    } else {
        Ok((one_entry(root, section, &setting.place), rest))
    };
    match found {
        Ok((Some(table), rest)) => set(table, section, rest, setting, report),
        // The section is something else altogether, which is a fault of its own.
        Ok((None, _)) => {}
        Err(wrong) => report.add(&setting.place, parts.join("."), wrong),
    }
}

fn one_entry<'a>(root: &'a mut Table, section: &Section, place: &Place) -> Option<&'a mut Table> {
    if root.get_mut(section.name).is_none() {
        root.set(section.name, Item { node: Node::Table(Table::default()), place: place.clone() });
    }
    match &mut root.get_mut(section.name)?.item.node {
        Node::Table(table) => Some(table),
        _ => None,
    }
}

type Found<'a, 'b> = (Option<&'a mut Table>, &'b [&'b str]);

/// The entry that the path names by its index; the next free index makes a new one.
fn list_entry<'a, 'b>(root: &'a mut Table, section: &Section, rest: &'b [&'b str], place: &Place) -> Result<Found<'a, 'b>, Wrong> {
    let example = || {
        format!(
            "write {}0__{} or {}.0.{}",
            env_name(section.name),
            section.keys[0].name.to_uppercase(),
            section.name,
            section.keys[0].name
        )
    };
    let Some((index, rest)) = rest.split_first() else { return Err(Wrong::hint("needs an index and a key", example())) };
    let Ok(index) = index.parse::<usize>() else { return Err(Wrong::hint("needs an index, counted from 0", example())) };
    if root.get_mut(section.name).is_none() {
        root.set(section.name, Item { node: Node::List(Vec::new()), place: place.clone() });
    }
    let Some(Node::List(items)) = root.get_mut(section.name).map(|field| &mut field.item.node) else { return Ok((None, rest)) };
    if index > items.len() || index >= section.most {
        return Err(format!("there are {} entries, the next index is {}", items.len(), items.len()).into());
    }
    if index == items.len() {
        items.push(Item { node: Node::Table(Table::default()), place: place.clone() });
    }
    match &mut items[index].node {
        Node::Table(table) => Ok((Some(table), rest)),
        _ => Ok((None, rest)),
    }
}

fn env_name(section: &str) -> String {
    format!("{PREFIX}{}__", section.to_uppercase())
}

fn set(table: &mut Table, section: &'static Section, rest: &[&str], setting: &Setting, report: &mut Report) {
    let path = setting.path.join(".");
    let Some((name, within)) = rest.split_first() else {
        return report.add(&setting.place, path, Wrong::hint("names a section", "name one of its keys"));
    };
    let Some(key) = section.key(name) else {
        return report.add(&setting.place, path, unknown_key(section, name));
    };
    let node = match (key.kind, within) {
        (kind, []) => from_text(kind, &setting.raw),
        (Kind::Ranges, _) => from_toml(&setting.raw),
        (Kind::Headers | Kind::Fields | Kind::Labels, _) => Ok(Node::Text(setting.raw.clone())),
        _ => {
            return report.add(
                &setting.place,
                path,
                Wrong::hint("names something within a key that holds one value", format!("name {} alone", key.name)),
            );
        }
    };
    let node = match node {
        Ok(node) => node,
        Err(wrong) => return report.add(&setting.place, path, wrong),
    };
    let item = Item { node, place: setting.place.clone() };
    clear_lower(table, key.name, key.alias, &setting.place);
    if within.is_empty() {
        return table.set(key.name, item);
    }
    if table.get_mut(key.name).is_none() {
        table.set(key.name, Item { node: Node::Table(Table::default()), place: setting.place.clone() });
    }
    if let Some(Node::Table(inner)) = table.get_mut(key.name).map(|field| &mut field.item.node) {
        let name = within.join(".");
        // Header names differ in case only by habit: the variable replaces the file's.
        inner.fields.retain(|field| !field.name.eq_ignore_ascii_case(&name));
        inner.set(&name, item);
    }
}

/// Removes what the new value replaces under another name: the alias, and the other ways to give a secret from a lower layer.
fn clear_lower(table: &mut Table, name: &str, alias: Option<&str>, place: &Place) {
    let same_layer = |other: &Place| std::mem::discriminant(other) == std::mem::discriminant(place);
    table.fields.retain(|field| {
        let other_way = secrets::replaces(name, &field.name) && !same_layer(&field.place);
        !other_way && alias != Some(field.name.as_str())
    });
}

/// Reads a text by the kind of its key: lists also as `a,b`, tables as inline TOML.
fn from_text(kind: Kind, raw: &str) -> Result<Node, Wrong> {
    let text = || Node::Text(raw.to_owned());
    Ok(match kind {
        Kind::Bool => raw.parse().map_or_else(|_| text(), Node::Bool),
        Kind::Int(..) => raw.parse().map_or_else(|_| text(), Node::Int),
        Kind::Float(..) => raw.parse().map_or_else(|_| text(), Node::Float),
        Kind::Words(_) | Kind::Names | Kind::Recipients | Kind::Hosts | Kind::Addresses if !raw.trim_start().starts_with('[') => {
            let item = |part: &str| Item { node: Node::Text(part.to_owned()), place: Place::Nowhere };
            Node::List(raw.split(',').map(str::trim).filter(|part| !part.is_empty()).map(item).collect())
        }
        Kind::Words(_)
        | Kind::Names
        | Kind::Recipients
        | Kind::Hosts
        | Kind::Addresses
        | Kind::Headers
        | Kind::Fields
        | Kind::Labels
        | Kind::Ranges => from_toml(raw)?,
        _ => text(),
    })
}

fn from_toml(raw: &str) -> Result<Node, Wrong> {
    let (mut table, faults) = node::read(&format!("value = {raw}"), "");
    match table.get_mut("value") {
        Some(field) if faults.is_empty() => Ok(field.item.clone().unplaced().node),
        _ => Err(Wrong::hint("is not valid TOML", "write it as in the file, on one line")),
    }
}
