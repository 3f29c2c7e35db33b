//! Puts entries of one stream into Redis: one round trip, all of them are taken or none counts.
//!
//! In: the commands. Out: whether Redis, and as many replicas as are wanted, have them. A crash in between leaves an outcome that nobody
//! knows; whoever comes next looks.

use redis::{Cmd, Value, cmd};

use super::link::{Link, LinkError};

/// Sends `adds`; several go as one transaction.
///
/// # Errors
/// Redis refused (code `gone`: the stream is not there, or has later entries), or the outcome is unknown: throw the link away then.
pub(in crate::buffer) fn add_all(link: &mut Link, adds: Vec<Cmd>, replicas: u32) -> Result<(), LinkError> {
    let mut commands = adds;
    let entries = commands.len();
    if entries > 1 {
        commands.insert(0, cmd("MULTI"));
        commands.push(cmd("EXEC"));
    }
    let replicas = i64::from(replicas);
    if replicas > 0 {
        let wait_ms = u64::try_from(link.timeout().as_millis() / 2).unwrap_or(1_000);
        let mut wait = cmd("WAIT");
        wait.arg(replicas).arg(wait_ms);
        commands.push(wait);
    }
    let mut answers = link.ask_all(&commands)?;
    if replicas > 0 {
        match answers.pop() {
            Some(Ok(Value::Int(reached))) if reached >= replicas => {}
            Some(Ok(Value::Int(reached))) => {
                return Err(LinkError::ours(
                    "replicas",
                    format!("only {reached} of {replicas} replicas have the readings in time"),
                ));
            }
            Some(Err(error)) => return Err(error),
            _ => return Err(LinkError::ours("error", "WAIT was not answered")),
        }
    }
    // The reason of a transaction that was refused stands at the command that it was refused for.
    if let Some(refused) = answers.iter().find_map(|answer| answer.as_ref().err()) {
        return Err(refused.clone());
    }
    let ids = match answers.pop() {
        Some(Ok(Value::Array(ids))) if entries > 1 => ids,
        Some(Ok(id)) if entries == 1 => vec![id],
        _ => Vec::new(),
    };
    if ids.len() == entries && ids.iter().all(|id| matches!(id, Value::BulkString(_))) {
        return Ok(());
    }
    Err(LinkError::ours("gone", "the stream is not in Redis any more: its data was flushed, evicted or replaced"))
}
