//! Statements of our own text that each connection to PostgreSQL keeps prepared. `diesel::sql_query` has its text parsed anew each time,
//! in a round trip of its own; for the few statements that stand between a commit and a send that was about a quarter of the median way (docs/PERFORMANCE.md).

use diesel::{
    pg::Pg,
    prelude::*,
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sql_types::{Array, BigInt, Integer, Nullable, Text, Untyped},
};

/// A value that is bound.
#[derive(Clone, Debug)]
pub(in crate::store) enum Bind<'a> {
    BigInt(i64),
    Integer(i32),
    Text(&'a str),
    BigInts(Vec<i64>),
    Integers(Vec<i32>),
    Texts(Vec<Option<&'a str>>),
}

/// See the module. A connection keeps every text that it has seen: let there be few, with nothing written into them that varies.
#[derive(Clone, Debug)]
pub(in crate::store) struct Prepared<'a> {
    text: String,
    binds: Vec<Bind<'a>>,
}

impl<'a> Prepared<'a> {
    /// `text` with the values of `$1`, `$2` and so on up to `$9`, which must come first in this order; each may come again.
    pub(in crate::store) fn new(text: impl Into<String>, binds: Vec<Bind<'a>>) -> Self {
        Self { text: text.into(), binds }
    }
}

impl QueryFragment<Pg> for Prepared<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let mut rest = self.text.as_str();
        for (at, bind) in self.binds.iter().enumerate() {
            // diesel numbers what is bound by its order and writes the number down; where it comes again it stands in the text.
            let place = format!("${}", at + 1);
            let (before, behind) = rest
                .split_once(&place)
                .ok_or_else(|| diesel::result::Error::QueryBuilderError(format!("no {place} in order").into()))?;
            out.push_sql(before);
            rest = behind;
            match bind {
                Bind::BigInt(value) => out.push_bind_param::<BigInt, _>(value)?,
                Bind::Integer(value) => out.push_bind_param::<Integer, _>(value)?,
                Bind::Text(value) => out.push_bind_param::<Text, _>(value)?,
                Bind::BigInts(values) => out.push_bind_param::<Array<BigInt>, _>(values)?,
                Bind::Integers(values) => out.push_bind_param::<Array<Integer>, _>(values)?,
                Bind::Texts(values) => out.push_bind_param::<Array<Nullable<Text>>, _>(values)?,
            }
        }
        out.push_sql(rest);
        Ok(())
    }
}

impl QueryId for Prepared<'_> {
    type QueryId = ();

    const HAS_STATIC_QUERY_ID: bool = false;
}

impl Query for Prepared<'_> {
    type SqlType = Untyped;
}

impl RunQueryDsl<PgConnection> for Prepared<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_sent_as_it_is_written_and_values_out_of_order_are_refused() {
        let text = "SELECT $1, $2 FROM t WHERE a = $1 LIMIT $3";
        let binds = vec![Bind::Text("a"), Bind::BigInts(vec![1, 2]), Bind::BigInt(7)];
        let shown = diesel::debug_query::<Pg, _>(&Prepared::new(text, binds.clone())).to_string();
        assert_eq!(shown, format!("{text} -- binds: [\"a\", [1, 2], 7]"));
        let wrong = Prepared::new("SELECT $2, $1", binds);
        assert!(diesel::query_builder::QueryFragment::<Pg>::to_sql(&wrong, &mut Default::default(), &Pg).is_err());
    }
}
