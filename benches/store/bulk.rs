//! Ways into PostgreSQL, side by side: what the daemon does, and the statements it could use instead. Each transaction moves the
//! cursor, writes the rows under their unique key and writes the ledger, as the daemon's own does.

use belayd::{
    buffer::Frame,
    domain::reading::ReadingRef,
    store::{StoreError, schema::readings},
};
use diesel::{
    PgConnection, QueryResult,
    connection::SimpleConnection,
    pg::{CopyFormat, Pg},
    prelude::*,
    query_builder::{AstPass, QueryFragment, QueryId},
    sql_types::{Array, BigInt, Double, Nullable, Text},
};

diesel::table! {
    arriving (engine_id, observed_at_us) {
        engine_id -> Text,
        observed_at_us -> BigInt,
        status -> Nullable<Text>,
        temperature -> Nullable<Double>,
        rpm -> Nullable<Double>,
        pressure -> Nullable<Double>,
        fuel_flow -> Nullable<Double>,
        extra -> Nullable<Text>,
        stream_no -> BigInt,
        seq -> BigInt,
        created_at_us -> BigInt,
    }
}

const COLUMNS: &str =
    "engine_id, observed_at_us, status, temperature, rpm, pressure, fuel_flow, extra, stream_no, seq, created_at_us";

/// The columns of [`COLUMNS`] as diesel names them.
const TARGET: Target = (
    readings::engine_id,
    readings::observed_at_us,
    readings::status,
    readings::temperature,
    readings::rpm,
    readings::pressure,
    readings::fuel_flow,
    readings::extra,
    readings::stream_no,
    readings::seq,
    readings::created_at_us,
);
type Target = (
    readings::engine_id,
    readings::observed_at_us,
    readings::status,
    readings::temperature,
    readings::rpm,
    readings::pressure,
    readings::fuel_flow,
    readings::extra,
    readings::stream_no,
    readings::seq,
    readings::created_at_us,
);

/// The statement that carries the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `store_frames`, whatever it does.
    Daemon,
    /// `INSERT … SELECT FROM unnest(arrays) ON CONFLICT DO NOTHING`.
    Unnest,
    /// `INSERT … SELECT unnest(array), unnest(array), … ON CONFLICT DO NOTHING`.
    UnnestList,
    /// `COPY` in binary form into the table itself: fails as a whole where one key is taken.
    Copy,
    /// `COPY` in text form into the table itself.
    CopyText,
    /// `COPY` into a temporary table, then `INSERT … SELECT ON CONFLICT DO NOTHING`.
    CopyTemporary,
}

impl Way {
    pub const ALL: [Self; 6] = [Self::Daemon, Self::Unnest, Self::UnnestList, Self::Copy, Self::CopyText, Self::CopyTemporary];

    pub fn name(self) -> &'static str {
        match self {
            Self::Daemon => "daemon",
            Self::Unnest => "unnest",
            Self::UnnestList => "unnest-list",
            Self::Copy => "copy",
            Self::CopyText => "copy-text",
            Self::CopyTemporary => "copy-temporary",
        }
    }
}

type Rows<'a> = Vec<(i64, i64, ReadingRef<'a>)>;

/// What must be there before [`store`] is called on a connection.
pub fn prepare(conn: &mut PgConnection, way: Way) -> QueryResult<()> {
    if way == Way::CopyTemporary {
        conn.batch_execute(
            "CREATE TEMPORARY TABLE arriving (LIKE readings) ON COMMIT DELETE ROWS; ALTER TABLE arriving DROP COLUMN updated_at_us",
        )?;
    }
    Ok(())
}

/// One transaction as the daemon's, with another statement for the rows.
pub fn store(conn: &mut PgConnection, way: Way, stream: &str, stream_no: i64, frames: &[Frame]) -> Result<u64, StoreError> {
    let first = frames[0].first_seq.cast_signed();
    let last = frames[frames.len() - 1].last_seq().cast_signed();
    let mut rows: Rows<'_> = Vec::new();
    for frame in frames {
        let numbers = frame.first_seq.cast_signed()..;
        rows.extend(numbers.zip(frame.batch.iter()).map(|(seq, reading)| (seq, frame.batch.received_at_us(), reading)));
    }
    rows.sort_by(|(_, _, a), (_, _, b)| (a.engine_id, a.observed_at_us).cmp(&(b.engine_id, b.observed_at_us)));
    conn.transaction::<_, diesel::result::Error, _>(|conn| {
        let moved = Cached("UPDATE streams SET cursor_seq = $1 WHERE stream = $2 AND cursor_seq = $3", (last, stream, first - 1));
        assert_eq!(moved.execute(conn)?, 1, "the cursor moves");
        let inserted = match way {
            Way::Daemon => unreachable!("the daemon's own function is called instead"),
            Way::Unnest => Unnest::<false>::new(stream_no, &rows).execute(conn)?,
            Way::UnnestList => Unnest::<true>::new(stream_no, &rows).execute(conn)?,
            Way::Copy => {
                let bytes = binary(stream_no, &rows);
                let copy = diesel::copy_from(readings::table).from_raw_data(TARGET, |out| send(&bytes, out));
                copy.with_format(CopyFormat::Binary).execute(conn)?
            }
            Way::CopyText => {
                let bytes = text(stream_no, &rows);
                diesel::copy_from(readings::table).from_raw_data(TARGET, |out| send(&bytes, out)).execute(conn)?
            }
            Way::CopyTemporary => {
                let bytes = binary(stream_no, &rows);
                let copy = diesel::copy_from(arriving::table).from_raw_data(arriving::all_columns, |out| send(&bytes, out));
                copy.with_format(CopyFormat::Binary).execute(conn)?;
                MoveOn.execute(conn)?
            }
        };
        let counted = inserted as i64;
        Cached(
            "INSERT INTO batches (last_seq, stream, first_seq, stored, duplicate, conflict, dead, created_at_us, updated_at_us) \
             VALUES ($1, $2, $3, $1 - $3 + 1, 0, 0, 0, 0, 0)",
            (last, stream, first),
        )
        .execute(conn)?;
        Cached("UPDATE streams SET stored = stored + $1 WHERE stream = $2 AND cursor_seq >= $3", (counted, stream, 0))
            .execute(conn)?;
        Ok(inserted as u64)
    })
    .map_err(StoreError::from)
}

fn send(bytes: &[u8], out: &mut dyn std::io::Write) -> QueryResult<()> {
    for chunk in bytes.chunks(64 * 1024) {
        out.write_all(chunk).map_err(|error| diesel::result::Error::SerializationError(Box::new(error)))?;
    }
    Ok(())
}

/// PostgreSQL's binary form of `COPY`.
fn binary(stream_no: i64, rows: &Rows<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(rows.len() * 144);
    out.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    let field = |out: &mut Vec<u8>, bytes: Option<&[u8]>| match bytes {
        Some(bytes) => {
            out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
            out.extend_from_slice(bytes);
        }
        None => out.extend_from_slice(&(-1i32).to_be_bytes()),
    };
    for (seq, created_at_us, reading) in rows {
        out.extend_from_slice(&11i16.to_be_bytes());
        field(&mut out, Some(reading.engine_id.as_bytes()));
        field(&mut out, Some(&reading.observed_at_us.to_be_bytes()));
        field(&mut out, reading.status.map(str::as_bytes));
        for metric in [reading.temperature, reading.rpm, reading.pressure, reading.fuel_flow] {
            field(&mut out, metric.map(f64::to_be_bytes).as_ref().map(<[u8; 8]>::as_slice));
        }
        field(&mut out, reading.extra.map(str::as_bytes));
        for number in [&stream_no, seq, created_at_us] {
            field(&mut out, Some(&number.to_be_bytes()));
        }
    }
    out.extend_from_slice(&(-1i16).to_be_bytes());
    out
}

/// Its text form. The benchmark's texts need no escapes.
fn text(stream_no: i64, rows: &Rows<'_>) -> Vec<u8> {
    use std::io::Write as _;
    let mut out = Vec::with_capacity(rows.len() * 144);
    for (seq, created_at_us, reading) in rows {
        let _ = write!(out, "{}\t{}\t{}", reading.engine_id, reading.observed_at_us, reading.status.unwrap_or("\\N"));
        for metric in [reading.temperature, reading.rpm, reading.pressure, reading.fuel_flow] {
            let _ = match metric {
                Some(value) => write!(out, "\t{value}"),
                None => write!(out, "\t\\N"),
            };
        }
        let _ = writeln!(out, "\t{}\t{stream_no}\t{seq}\t{created_at_us}", reading.extra.unwrap_or("\\N"));
    }
    out
}

/// A statement of two numbers around a text, prepared once.
struct Cached<'a>(&'static str, (i64, &'a str, i64));

impl QueryId for Cached<'_> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl RunQueryDsl<PgConnection> for Cached<'_> {}

impl QueryFragment<Pg> for Cached<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut pieces = self.0.split('$');
        out.push_sql(pieces.next().unwrap_or_default());
        for piece in pieces {
            let (number, rest) = piece.split_at(1);
            match number {
                "1" => out.push_bind_param::<BigInt, i64>(&self.1.0)?,
                "2" => out.push_bind_param::<Text, str>(self.1.1)?,
                _ => out.push_bind_param::<BigInt, i64>(&self.1.2)?,
            }
            out.push_sql(rest);
        }
        Ok(())
    }
}

/// From the temporary table into the real one.
struct MoveOn;

impl QueryId for MoveOn {
    type QueryId = Self;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl RunQueryDsl<PgConnection> for MoveOn {}

impl QueryFragment<Pg> for MoveOn {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("INSERT INTO readings (");
        out.push_sql(COLUMNS);
        out.push_sql(") SELECT ");
        out.push_sql(COLUMNS);
        out.push_sql(" FROM arriving ON CONFLICT (engine_id, observed_at_us) DO NOTHING");
        Ok(())
    }
}

/// One array for each column, as binary parameters of one prepared statement. `LIST` unpacks them side by side in the list of columns,
/// else one function unpacks them all.
struct Unnest<'a, const LIST: bool> {
    stream_no: i64,
    texts: [Vec<Option<&'a str>>; 3],
    numbers: [Vec<i64>; 3],
    metrics: [Vec<Option<f64>>; 4],
}

impl<'a, const LIST: bool> Unnest<'a, LIST> {
    fn new(stream_no: i64, rows: &Rows<'a>) -> Self {
        let metric = |get: fn(&ReadingRef<'_>) -> Option<f64>| rows.iter().map(|row| get(&row.2)).collect();
        Self {
            stream_no,
            texts: [
                rows.iter().map(|row| Some(row.2.engine_id)).collect(),
                rows.iter().map(|row| row.2.status).collect(),
                rows.iter().map(|row| row.2.extra).collect(),
            ],
            numbers: [
                rows.iter().map(|row| row.2.observed_at_us).collect(),
                rows.iter().map(|row| row.0).collect(),
                rows.iter().map(|row| row.1).collect(),
            ],
            metrics: [metric(|r| r.temperature), metric(|r| r.rpm), metric(|r| r.pressure), metric(|r| r.fuel_flow)],
        }
    }
}

impl<const LIST: bool> QueryId for Unnest<'_, LIST> {
    type QueryId = Unnest<'static, LIST>;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<const LIST: bool> RunQueryDsl<PgConnection> for Unnest<'_, LIST> {}

impl<const LIST: bool> QueryFragment<Pg> for Unnest<'_, LIST> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let (open, between, close) = if LIST { ("unnest(", "), unnest(", ")") } else { ("u.* FROM unnest(", ", ", ") AS u") };
        out.push_sql("INSERT INTO readings (stream_no, engine_id, status, extra, observed_at_us, seq, created_at_us, ");
        out.push_sql("temperature, rpm, pressure, fuel_flow) SELECT ");
        out.push_bind_param::<BigInt, i64>(&self.stream_no)?;
        out.push_sql(", ");
        for (at, texts) in self.texts.iter().enumerate() {
            out.push_sql(if at == 0 { open } else { between });
            out.push_bind_param::<Array<Nullable<Text>>, Vec<Option<&str>>>(texts)?;
        }
        for numbers in &self.numbers {
            out.push_sql(between);
            out.push_bind_param::<Array<BigInt>, Vec<i64>>(numbers)?;
        }
        for metric in &self.metrics {
            out.push_sql(between);
            out.push_bind_param::<Array<Nullable<Double>>, Vec<Option<f64>>>(metric)?;
        }
        out.push_sql(close);
        out.push_sql(" ON CONFLICT (engine_id, observed_at_us) DO NOTHING");
        Ok(())
    }
}
