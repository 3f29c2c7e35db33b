//! The tree of what was written, each value with its place. In: TOML text. Out: a tree and the syntax faults, all of them.

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::fault::{Fault, Place};

/// How far into a line columns count characters.
const LINE_COUNTED_BYTES: usize = 4_096;

/// A value as written, before its key says what it must be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// `true` or `false`
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number with a point, or one too large for [`Node::Int`].
    Float(f64),
    /// Text.
    Text(String),
    /// A list, of values or of tables.
    List(Vec<Item>),
    /// A table.
    Table(Table),
    /// A date or time: no key takes one.
    Date,
}

impl Node {
    /// What it is, in words, for faults.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Date => "a date",
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    /// The value.
    pub(super) node: Node,
    /// Where it stands.
    pub(super) place: Place,
}

impl Item {
    /// The same value, standing nowhere: a default.
    pub(super) fn unplaced(self) -> Self {
        let node = match self.node {
            Node::List(items) => Node::List(items.into_iter().map(Self::unplaced).collect()),
            Node::Table(table) => {
                let unplace = |field: Field| Field { place: Place::Nowhere, item: field.item.unplaced(), ..field };
                Node::Table(Table { fields: table.fields.into_iter().map(unplace).collect() })
            }
            node => node,
        };
        Self { node, place: Place::Nowhere }
    }
}

/// One key of a table with its value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    /// The key as written.
    pub(super) name: String,
    /// Where the key stands.
    pub(super) place: Place,
    /// The value.
    pub(super) item: Item,
}

/// A table: keys in the order in which they stand, each once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    /// The fields.
    pub(super) fields: Vec<Field>,
}

impl Table {
    /// The value of a key.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Field> {
        self.fields.iter_mut().find(|field| field.name == name)
    }

    /// Sets or replaces a key; the new value's place becomes the key's.
    pub(super) fn set(&mut self, name: &str, item: Item) {
        let field = Field { name: name.to_owned(), place: item.place.clone(), item };
        match self.get_mut(name) {
            Some(old) => *old = field,
            None => self.fields.push(field),
        }
    }
}

/// Reads TOML text. Where there are syntax faults the tree holds what could be understood beside them.
pub(super) fn read(text: &str, file: &str) -> (Table, Vec<Fault>) {
    let lines = Lines::new(text);
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut faults: Vec<_> = errors.iter().map(|error| syntax_fault(error, file, &lines)).collect();
    faults.sort_by(|a, b| a.place.cmp(&b.place));
    (table(root.get_ref(), &lines), faults)
}

fn syntax_fault(error: &toml::de::Error, file: &str, lines: &Lines<'_>) -> Fault {
    let place = error.span().map_or(Place::Nowhere, |span| lines.place(span.start));
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    let key = String::new();
    Fault { file: file.to_owned(), place, key, message: format!("not valid TOML: {message}"), hint: None }
}

fn table(from: &DeTable<'_>, lines: &Lines<'_>) -> Table {
    let field = |(key, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| Field {
        name: key.get_ref().to_string(),
        place: lines.place(key.span().start),
        item: item(value, lines),
    };
    Table { fields: from.iter().map(field).collect() }
}

fn item(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Item {
    Item { node: node(value.get_ref(), lines), place: lines.place(value.span().start) }
}

fn node(value: &DeValue<'_>, lines: &Lines<'_>) -> Node {
    match value {
        DeValue::String(text) => Node::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Node::Int(number),
            // Beyond 64 bits: every bound is narrower, so that the range check refuses it.
            Err(_) => Node::Float(if number.as_str().starts_with('-') { f64::MIN } else { f64::MAX }),
        },
        DeValue::Float(number) => Node::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Node::Bool(*flag),
        DeValue::Datetime(_) => Node::Date,
        DeValue::Array(array) => Node::List(list(array, lines)),
        DeValue::Table(from) => Node::Table(table(from, lines)),
    }
}

fn list(array: &DeArray<'_>, lines: &Lines<'_>) -> Vec<Item> {
    array.iter().map(|value| item(value, lines)).collect()
}

/// Where the lines of a text begin, to turn an offset into line and column.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset).max(1);
        let start = self.starts[line - 1];
        // Far out on a line the column counts bytes: counting characters for each value there would take for ever.
        let before = if offset - start < LINE_COUNTED_BYTES { self.text.get(start..offset) } else { None };
        Place::File { line, column: before.map_or(offset - start, |before| before.chars().count()) + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize) -> Place {
        Place::File { line, column }
    }

    #[test]
    fn every_value_knows_its_line_and_column() {
        let (mut root, faults) = read("[a]\nb = 1\n\n[[c]]\n  d = \"ü\" # ä\n[[c]]\n", "f");
        assert_eq!(faults, []);
        let Node::Table(a) = &mut root.get_mut("a").expect("there").item.node else { panic!("a table") };
        let b = a.get_mut("b").expect("there");
        assert_eq!((&b.place, &b.item.place), (&at(2, 1), &at(2, 5)));
        let c = root.get_mut("c").expect("there");
        let Node::List(items) = &c.item.node else { panic!("a list") };
        assert_eq!((&items[0].place, &items[1].place), (&at(4, 1), &at(6, 1)));
    }

    #[test]
    fn syntax_faults_are_all_told_with_their_places() {
        let (_, faults) = read("a = \nb = 1\nb = 2\n[x\n", "f");
        let lines: Vec<_> = faults.iter().map(|fault| fault.place.clone()).collect();
        assert_eq!(lines.len(), 3, "{faults:?}");
        assert!(matches!(lines[0], Place::File { line: 1, .. }), "{lines:?}");
        assert!(matches!(lines[1], Place::File { line: 3, .. }), "{lines:?}");
        assert!(matches!(lines[2], Place::File { line: 4, .. }), "{lines:?}");
    }
}
