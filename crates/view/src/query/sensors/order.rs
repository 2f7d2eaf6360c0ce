//! The order of the list of sensors: what may be asked for, its SQL, its cursors.

use std::str::FromStr;

use rusqlite::types::Value;

use super::{STATE, Sensor};
use crate::error::ViewError;
use crate::query::condition::Conditions;
use crate::query::cursor;

/// What the list of sensors is ordered by. Ties are broken by id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SensorSortKey {
    /// The sensor's id.
    #[default]
    Id,
    /// The sensor's type.
    Type,
    /// The newest value.
    Value,
    /// The state, mildest first.
    State,
    /// When the newest reading arrived.
    LastSeen,
}

/// The order of the list of sensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SensorSort {
    /// By what.
    pub key: SensorSortKey,
    /// Largest first.
    pub descending: bool,
}

impl FromStr for SensorSort {
    type Err = ViewError;

    /// `id`, `type`, `value`, `state` or `last_seen`; `-` in front turns the order around.
    fn from_str(text: &str) -> Result<Self, ViewError> {
        let (descending, word) = match text.strip_prefix('-') {
            Some(word) => (true, word),
            None => (false, text),
        };
        let key = match word {
            "id" => SensorSortKey::Id,
            "type" => SensorSortKey::Type,
            "value" => SensorSortKey::Value,
            "state" => SensorSortKey::State,
            "last_seen" => SensorSortKey::LastSeen,
            _ => {
                return Err(ViewError::InvalidFilter {
                    field: "sort",
                    problem:
                        "must be one of id, type, value, state, last_seen, with `-` in front for descending"
                            .into(),
                });
            }
        };
        Ok(Self { key, descending })
    }
}

/// The order of the list, as SQL and as cursors.
pub(super) struct Order {
    key: SensorSortKey,
    descending: bool,
}

impl Order {
    pub(super) fn of(sort: SensorSort) -> Self {
        Self { key: sort.key, descending: sort.descending }
    }

    /// What is compared before the id.
    fn expression(&self) -> Option<&'static str> {
        match self.key {
            SensorSortKey::Id => None,
            SensorSortKey::Type => Some("description.sensor_type"),
            SensorSortKey::Value => Some("state.last_value"),
            SensorSortKey::State => Some(STATE),
            SensorSortKey::LastSeen => Some("state.last_arrival"),
        }
    }

    /// The values of the question marks in the expression.
    pub(super) fn values(&self, stale_before: i64) -> Vec<Value> {
        if self.key == SensorSortKey::State { vec![Value::Integer(stale_before)] } else { Vec::new() }
    }

    pub(super) fn sql(&self) -> String {
        let direction = if self.descending { "DESC" } else { "ASC" };
        match self.expression() {
            Some(expression) => format!("{expression} {direction}, name.sensor_id {direction}"),
            None => format!("name.sensor_id {direction}"),
        }
    }

    fn name(&self) -> &'static str {
        match (self.key, self.descending) {
            (SensorSortKey::Id, false) => "sensors/id",
            (SensorSortKey::Id, true) => "sensors/-id",
            (SensorSortKey::Type, false) => "sensors/type",
            (SensorSortKey::Type, true) => "sensors/-type",
            (SensorSortKey::Value, false) => "sensors/value",
            (SensorSortKey::Value, true) => "sensors/-value",
            (SensorSortKey::State, false) => "sensors/state",
            (SensorSortKey::State, true) => "sensors/-state",
            (SensorSortKey::LastSeen, false) => "sensors/last_seen",
            (SensorSortKey::LastSeen, true) => "sensors/-last_seen",
        }
    }

    /// Only what comes after the row that the cursor names.
    pub(super) fn after(
        &self,
        conditions: &mut Conditions,
        text: &str,
        stale_before: i64,
    ) -> Result<(), ViewError> {
        let beyond = if self.descending { "<" } else { ">" };
        match self.expression() {
            Some(expression) => {
                let key = cursor::decode::<2>(self.name(), text)?;
                let values = self.values(stale_before).into_iter().chain(key);
                conditions.and(format!("({expression}, name.sensor_id) {beyond} (?, ?)"), values);
            }
            None => {
                let key = cursor::decode::<1>(self.name(), text)?;
                conditions.and(format!("name.sensor_id {beyond} ?"), key);
            }
        }
        Ok(())
    }

    pub(super) fn cursor(&self, last: &Sensor) -> String {
        let id = Value::Text(last.sensor_id.clone());
        let key = match self.key {
            SensorSortKey::Id => return cursor::encode(self.name(), &[id]),
            SensorSortKey::Type => Value::Text(last.sensor_type.clone()),
            SensorSortKey::Value => Value::Real(last.last_value),
            SensorSortKey::State => Value::Integer(last.state.rank()),
            SensorSortKey::LastSeen => Value::Integer(last.last_arrival.as_micros()),
        };
        cursor::encode(self.name(), &[key, id])
    }
}
