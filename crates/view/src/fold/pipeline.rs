use rusqlite::Transaction;
use crate::decode::{Decoded, Starts};
use crate::fold::Tally;
pub(crate) const CREATE: &str = "";
pub(crate) const DROP: &str = "";
pub(crate) fn apply(
    _transaction: &Transaction<'_>,
    _decoded: &Decoded,
    _starts: &Starts,
    _tally: &mut Tally,
) -> rusqlite::Result<()> {
    Ok(())
}
