//! The readings that are stored, from whatever form of slot they lie in.

use rusqlite::{CachedStatement, Row, params};

use crate::block::{Block, MalformedBlock, StoredReading};
use crate::error::ViewError;
use crate::fold::readings::Form;
use crate::query::Queries;

/// From and to, both included, in microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeRange {
    pub(crate) from: i64,
    pub(crate) to: i64,
}

impl TimeRange {
    pub(crate) const ALL: TimeRange = TimeRange { from: i64::MIN, to: i64::MAX };

    fn contains(&self, time: i64) -> bool {
        (self.from..=self.to).contains(&time)
    }
}

/// A slot and its span of time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotSpan {
    pub(crate) number: i64,
    pub(crate) form: Form,
    pub(crate) first_time: i64,
    pub(crate) last_time: i64,
}

/// Which readings of a slot are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Of the sensor with this number; none: of all.
    pub(crate) sensor: Option<i64>,
    /// Measured in this range.
    pub(crate) range: TimeRange,
    /// The newest so many suffice; giving more does no harm.
    pub(crate) newest: Option<usize>,
}

/// Reads slots, with statements that are prepared once.
pub(crate) struct StoredReadings<'q> {
    queries: &'q Queries<'q>,
    rows_of_sensor: CachedStatement<'q>,
    rows_of_all: CachedStatement<'q>,
    points: CachedStatement<'q>,
    blocks: CachedStatement<'q>,
}

const ROW: &str =
    "SELECT sensor, time, value, partition, offset, description, quality, level, extra FROM reading";
/// `-1` is no limit.
const NEWEST: &str = "ORDER BY time DESC, partition DESC, offset DESC LIMIT";

impl<'q> StoredReadings<'q> {
    pub(crate) fn new(queries: &'q Queries<'q>) -> Result<Self, ViewError> {
        let prepare =
            |sql: &str| queries.connection.prepare_cached(sql).map_err(queries.failed("sensor_readings"));
        Ok(Self {
            queries,
            rows_of_sensor: prepare(&format!(
                "{ROW} WHERE slot = ?1 AND sensor = ?2 AND time BETWEEN ?3 AND ?4 {NEWEST} ?5"
            ))?,
            rows_of_all: prepare(&format!("{ROW} WHERE slot = ?1 AND time BETWEEN ?2 AND ?3 {NEWEST} ?4"))?,
            points: prepare(
                "SELECT time, value FROM reading WHERE slot = ?1 AND sensor = ?2 AND time BETWEEN ?3 AND ?4",
            )?,
            // By their last sensor, so that the search for one sensor ends at the first block that begins after it.
            blocks: prepare(
                "SELECT first_sensor, first_time, last_time, body FROM reading_block
                 WHERE slot = ?1 AND last_sensor >= ?2 ORDER BY last_sensor",
            )?,
        })
    }

    /// Gives the wanted readings of one slot to `each`, in no particular order. `each` answers with the time before which
    /// it wants no more of them (`i64::MIN`: it wants all).
    pub(crate) fn visit(
        &mut self,
        slot: &SlotSpan,
        wanted: Wanted,
        each: &mut dyn FnMut(StoredReading) -> i64,
    ) -> Result<(), ViewError> {
        match slot.form {
            Form::Rows => self.visit_rows(slot, wanted, each),
            Form::Blocks => self.visit_blocks(slot, wanted, each),
        }
    }

    fn visit_rows(
        &mut self,
        slot: &SlotSpan,
        wanted: Wanted,
        each: &mut dyn FnMut(StoredReading) -> i64,
    ) -> Result<(), ViewError> {
        let failed = self.queries.failed("sensor_readings");
        let limit = wanted.newest.map_or(-1, |newest| i64::try_from(newest).unwrap_or(i64::MAX));
        let TimeRange { from, to } = wanted.range;
        let rows = match wanted.sensor {
            Some(sensor) => self.rows_of_sensor.query(params![slot.number, sensor, from, to, limit]),
            None => self.rows_of_all.query(params![slot.number, from, to, limit]),
        };
        let mut rows = rows.map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            each(stored_reading(row).map_err(&failed)?);
        }
        Ok(())
    }

    fn visit_blocks(
        &mut self,
        slot: &SlotSpan,
        wanted: Wanted,
        each: &mut dyn FnMut(StoredReading) -> i64,
    ) -> Result<(), ViewError> {
        let mut range = wanted.range;
        self.for_each_block(slot, wanted.sensor, wanted.range, |body, first_time, last_time| {
            if last_time < range.from {
                return Ok(());
            }
            Block::decode(body, first_time, wanted.sensor, |reading| {
                if range.contains(reading.time) {
                    range.from = range.from.max(each(reading));
                }
            })
        })
    }

    /// Gives time and value of one sensor's readings in one slot and range to `each`, in no particular order.
    pub(crate) fn visit_points(
        &mut self,
        slot: &SlotSpan,
        sensor: i64,
        range: TimeRange,
        each: &mut dyn FnMut(i64, f64),
    ) -> Result<(), ViewError> {
        if slot.form == Form::Blocks {
            return self.for_each_block(slot, Some(sensor), range, |body, first_time, _| {
                Block::points(body, first_time, sensor, |time, value| {
                    if range.contains(time) {
                        each(time, value);
                    }
                })
            });
        }
        let failed = self.queries.failed("sensor_readings");
        let mut rows =
            self.points.query(params![slot.number, sensor, range.from, range.to]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            each(row.get(0).map_err(&failed)?, row.get(1).map_err(&failed)?);
        }
        Ok(())
    }

    /// Calls `each` with body, first and last time of every block of a slot that may hold readings of that sensor and range.
    fn for_each_block(
        &mut self,
        slot: &SlotSpan,
        sensor: Option<i64>,
        range: TimeRange,
        mut each: impl FnMut(&str, i64, i64) -> Result<(), MalformedBlock>,
    ) -> Result<(), ViewError> {
        let failed = self.queries.failed("sensor_readings");
        let (from_sensor, to_sensor) = (sensor.unwrap_or(i64::MIN), sensor.unwrap_or(i64::MAX));
        let mut rows = self.blocks.query(params![slot.number, from_sensor]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            let number = |column| row.get::<_, i64>(column).map_err(&failed);
            let (first_sensor, first_time, last_time) = (number(0)?, number(1)?, number(2)?);
            if first_sensor > to_sensor {
                break;
            }
            if last_time < range.from || first_time > range.to {
                continue;
            }
            self.queries.check_deadline("sensor_readings")?;
            let body = row.get_ref(3).and_then(|body| Ok(body.as_str()?)).map_err(&failed)?;
            each(body, first_time, last_time).map_err(|problem| malformed(&problem))?;
        }
        Ok(())
    }

    /// The reading at one place of the log, if this slot has it.
    pub(crate) fn find(
        &mut self,
        slot: &SlotSpan,
        sensor: i64,
        partition: i32,
        offset: i64,
    ) -> Result<Option<StoredReading>, ViewError> {
        let mut found = None;
        let wanted = Wanted { sensor: Some(sensor), range: TimeRange::ALL, newest: None };
        self.visit(slot, wanted, &mut |reading| {
            if reading.partition == partition && reading.offset == offset {
                found = Some(reading);
            }
            i64::MIN
        })?;
        Ok(found)
    }
}

impl Queries<'_> {
    /// Calls `each` with the slots that may hold readings of that range, the one that reaches furthest first, until it says
    /// `false`.
    pub(crate) fn for_each_slot(
        &self,
        range: TimeRange,
        mut each: impl FnMut(&SlotSpan) -> Result<bool, ViewError>,
    ) -> Result<(), ViewError> {
        let failed = self.failed("sensor_readings");
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT slot, form, first_time, last_time FROM reading_slot WHERE last_time >= ?1 AND first_time <= ?2
                 ORDER BY last_time DESC, first_time DESC, slot DESC",
            )
            .map_err(&failed)?;
        let mut rows = statement.query(params![range.from, range.to]).map_err(&failed)?;
        while let Some(row) = rows.next().map_err(&failed)? {
            if !each(&slot_span(row).map_err(&failed)?)? {
                break;
            }
        }
        Ok(())
    }
}

fn slot_span(row: &Row<'_>) -> rusqlite::Result<SlotSpan> {
    Ok(SlotSpan {
        number: row.get(0)?,
        form: Form::of_word(row.get_ref(1)?.as_str()?),
        first_time: row.get(2)?,
        last_time: row.get(3)?,
    })
}

/// From the columns of [`ROW`].
fn stored_reading(row: &Row<'_>) -> rusqlite::Result<StoredReading> {
    Ok(StoredReading {
        sensor: row.get(0)?,
        time: row.get(1)?,
        value: row.get(2)?,
        partition: row.get(3)?,
        offset: row.get(4)?,
        description: row.get(5)?,
        quality: row.get(6)?,
        level: row.get(7)?,
        extra: row.get::<_, Option<String>>(8)?.map(Into::into),
    })
}

fn malformed(problem: &MalformedBlock) -> ViewError {
    ViewError::Corrupt { table: "reading_block", problem: problem.to_string() }
}
