//! The conditions of the partial indexes, by database: a statement that repeats one, word by word, is served by its index.
//!
//! The two databases pay for different things. SQLite changes a row and its indexes in place, so its indexes name the states. PostgreSQL writes
//! a whole new version of a row, and a new entry in *every* index unless no column that any index mentions has changed; so its
//! indexes know only `phase`, which the database derives from the state and which a claim does not change:
//!
//! | phase | states |
//! |---|---|
//! | `scheduled` | `scheduled` |
//! | `turn` | `ready`; `claimed` and `sending`, unless to Kafka |
//! | `run` | `claimed` and `sending` to Kafka |
//! | `retry` | `retry` |
//! | `uncertain`, `dead` | the same |
//! | `over` | `sent`, `discarded`, `cancelled` |

use crate::domain::delivery::DeliveryState;

/// Whether a column holds one of these states. SQLite uses a partial index only for a condition that is its own, word by word; and for
/// a list of three and more it builds a table whenever it looks, which is once for each row that it writes. Those are spelled out, in
/// the migrations as well.
pub(super) fn is_one_of(column: &str, states: &[DeliveryState]) -> String {
    match states {
        [one] => format!("{column} = '{one}'"),
        [_, _] => format!("{column} IN ({})", literals(states)),
        many => {
            let each: Vec<String> = many.iter().map(|state| format!("{column} = '{state}'")).collect();
            format!("({})", each.join(" OR "))
        }
    }
}

/// States as SQL literals.
pub(in crate::store) fn literals(states: &[DeliveryState]) -> String {
    let words: Vec<String> = states.iter().map(|state| format!("'{state}'")).collect();
    words.join(", ")
}

/// The states of [`turn`] and of [`held`] on either database hold together whatever is on its way; `row` is the table's alias with its
/// point, or nothing.
pub(in crate::store) fn open(is_pg: bool, row: &str) -> [String; 2] {
    [turn(is_pg, row), held(is_pg, row)]
}

/// What is ready; on PostgreSQL also what is claimed or being sent, unless to Kafka.
pub(super) fn turn(is_pg: bool, row: &str) -> String {
    if is_pg { format!("{row}phase = 'turn'") } else { is_one_of(&format!("{row}state"), &[DeliveryState::Ready]) }
}

/// What is claimed or being sent, on PostgreSQL only to Kafka, and what has to come again.
pub(in crate::store) fn held(is_pg: bool, row: &str) -> String {
    if is_pg { format!("{row}phase IN ('run', 'retry')") } else { is_one_of(&format!("{row}state"), &DeliveryState::TAKEN) }
}

/// What waits for a time.
pub(super) fn later(is_pg: bool) -> &'static str {
    if is_pg { "phase IN ('scheduled', 'retry')" } else { "state IN ('scheduled', 'retry')" }
}

/// What waits for a person, in one state or in any.
pub(super) fn failed(is_pg: bool, one: Option<DeliveryState>) -> String {
    let column = if is_pg { "phase" } else { "state" };
    let all = is_one_of(column, &DeliveryState::FAILED);
    one.map_or(all.clone(), |one| format!("{all} AND {column} = '{one}'"))
}

/// What no event moves any more.
pub(super) fn over(is_pg: bool) -> String {
    if is_pg {
        return "phase = 'over'".to_owned();
    }
    is_one_of("state", &[DeliveryState::Sent, DeliveryState::Discarded, DeliveryState::Cancelled])
}

/// What a worker of the outbox has, be it marked as being sent or not. Deliveries to Kafka are no outbox's.
pub(super) fn in_hand(is_pg: bool) -> String {
    let states = is_one_of("state", &[DeliveryState::Claimed, DeliveryState::Sending]);
    if is_pg { format!("phase = 'turn' AND {states}") } else { states }
}
