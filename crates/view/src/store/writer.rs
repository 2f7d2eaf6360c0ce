//! The thread that owns the writing connection.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use farol_bus::{ConsumedBatch, TopicPartition};
use farol_event::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};

use crate::decode::{Decoded, Starts};
use crate::error::ViewError;
use crate::fold::{Folds, Tally};
use crate::name::{ViewName, ViewTopics};
use crate::store::prune::{self, Pruned, Retention};
use crate::store::schema::WalIndex;
use crate::store::stats::SharedStats;
use crate::store::{AllPositions, Applied, PositionMap, StoreOptions, schema};

/// What the writer is asked to do, and where to send the answer. A closed answer channel means that the caller has gone: the
/// command is carried out all the same.
pub(crate) enum Command {
    Apply {
        views: Vec<ViewName>,
        batches: Arc<[ConsumedBatch]>,
        now: Timestamp,
        answer: oneshot::Sender<Result<BTreeMap<ViewName, Applied>, ViewError>>,
    },
    Clear {
        view: ViewName,
        answer: oneshot::Sender<Result<(), ViewError>>,
    },
    Prune {
        retention: Retention,
        answer: oneshot::Sender<Result<Pruned, ViewError>>,
    },
    Close {
        answer: oneshot::Sender<()>,
    },
}

/// A store as it was found.
pub(crate) struct Opened {
    pub(crate) writer: Writer,
    pub(crate) cleared: Vec<ViewName>,
}

/// Folds batches into the tables and moves positions.
pub(crate) struct Writer {
    path: PathBuf,
    connection: Connection,
    topics: ViewTopics,
    positions: watch::Sender<Arc<AllPositions>>,
    folds: Folds,
    stats: SharedStats,
}

/// What an apply did, before it is committed.
struct Done {
    tallies: BTreeMap<ViewName, Tally>,
    positions: AllPositions,
}

impl Writer {
    pub(crate) fn open(
        path: &Path,
        wal_index: WalIndex,
        options: &StoreOptions,
        stats: SharedStats,
    ) -> Result<Opened, ViewError> {
        let mut connection = schema::open_writer(path, wal_index, options)?;
        let cleared = schema::prepare(&mut connection, path)?;
        let positions = read_positions(&connection)
            .map_err(|source| ViewError::Open { path: path.to_path_buf(), source })?;
        let writer = Self {
            path: path.to_path_buf(),
            connection,
            topics: options.topics.clone(),
            positions: watch::Sender::new(Arc::new(positions)),
            folds: Folds::default(),
            stats,
        };
        Ok(Opened { writer, cleared })
    }

    pub(crate) fn subscribe_positions(&self) -> watch::Receiver<Arc<AllPositions>> {
        self.positions.subscribe()
    }

    /// Carries out commands until told to close, or until nobody is left who could send one.
    pub(crate) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut closed = None;
        while let Some(command) = commands.blocking_recv() {
            // A send fails when the caller has gone; see `Command`.
            match command {
                Command::Apply { views, batches, now, answer } => {
                    let _ = answer.send(self.apply(&views, &batches, now));
                }
                Command::Clear { view, answer } => {
                    let _ = answer.send(self.clear(view));
                }
                Command::Prune { retention, answer } => {
                    let _ = answer.send(self.prune(&retention));
                }
                Command::Close { answer } => {
                    // What waits already is still carried out; nothing more can be sent.
                    commands.close();
                    closed.get_or_insert(answer);
                }
            }
        }
        // Closing the last connection writes the WAL back. It stays, and is read at the next opening, if that fails.
        if let Err((_, error)) = self.connection.close() {
            tracing::warn!(path = %self.path.display(), %error, "the views' file was not closed cleanly");
        }
        if let Some(answer) = closed {
            let _ = answer.send(());
        }
    }

    fn apply(
        &mut self,
        views: &[ViewName],
        batches: &[ConsumedBatch],
        now: Timestamp,
    ) -> Result<BTreeMap<ViewName, Applied>, ViewError> {
        let views: BTreeSet<ViewName> = views.iter().copied().collect();
        let began = Instant::now();
        let done = match self.apply_and_commit(&views, batches, now) {
            Ok(done) => done,
            Err(error) => {
                // What the folds remember may stem from the transaction that was rolled back.
                self.folds.forget();
                let text = error.to_string();
                views.iter().for_each(|view| self.stats.failed(*view, &text));
                return Err(error);
            }
        };
        self.positions.send_replace(Arc::new(done.positions));
        let took = began.elapsed();
        let mut applied = BTreeMap::new();
        for view in views {
            let tally = done.tallies.get(&view).cloned().unwrap_or_default();
            let did = tally.applied();
            self.stats.succeeded(view, &did, &tally.skipped, took);
            applied.insert(view, did);
        }
        Ok(applied)
    }

    fn apply_and_commit(
        &mut self,
        views: &BTreeSet<ViewName>,
        batches: &[ConsumedBatch],
        now: Timestamp,
    ) -> Result<Done, ViewError> {
        let positions = AllPositions::clone(&self.positions.borrow());
        let transaction = begin(&mut self.connection)?;
        let done = fold_batches(&transaction, &mut self.folds, &self.topics, views, batches, positions, now)?;
        commit(transaction)?;
        Ok(done)
    }

    fn clear(&mut self, view: ViewName) -> Result<(), ViewError> {
        self.folds.forget();
        let transaction = begin(&mut self.connection)?;
        schema::clear(&transaction, view).map_err(|source| ViewError::Schema { view, source })?;
        commit(transaction)?;
        self.positions.send_modify(|all| {
            Arc::make_mut(all).remove(&view);
        });
        Ok(())
    }

    fn prune(&mut self, retention: &Retention) -> Result<Pruned, ViewError> {
        self.folds.forget_slots();
        let transaction = begin(&mut self.connection)?;
        let pruned = prune::slice(&transaction, retention)?;
        commit(transaction)?;
        Ok(pruned)
    }
}

/// Folds the batches into every named view, and moves the positions, within one transaction.
fn fold_batches(
    transaction: &Transaction<'_>,
    folds: &mut Folds,
    topics: &ViewTopics,
    views: &BTreeSet<ViewName>,
    batches: &[ConsumedBatch],
    mut positions: AllPositions,
    now: Timestamp,
) -> Result<Done, ViewError> {
    let failed_for = |view: ViewName| move |source| ViewError::Apply { view, source };
    // Parsed once for all views: the dictionaries are shared too, so a failure here is charged to the first view.
    let first = views.first().copied().unwrap_or(ViewName::Readings);
    let decoded = Decoded::decode(transaction, &mut folds.dictionary, topics, views, &positions, batches)
        .map_err(failed_for(first))?;
    let mut tallies = BTreeMap::new();
    for view in views {
        let of_view = positions.entry(*view).or_default();
        let starts = Starts::of(topics, of_view);
        let mut tally = Tally::default();
        folds.apply(*view, transaction, &decoded, &starts, &mut tally).map_err(failed_for(*view))?;
        decoded.count_unreadable(*view, &starts, &mut tally);
        tally.already_applied = count_already_applied(topics, *view, batches, of_view);
        move_positions(transaction, topics, *view, batches, of_view, now).map_err(failed_for(*view))?;
        tallies.insert(*view, tally);
    }
    Ok(Done { tallies, positions })
}

fn count_already_applied(
    topics: &ViewTopics,
    view: ViewName,
    batches: &[ConsumedBatch],
    of_view: &PositionMap,
) -> u64 {
    let mut next = of_view.clone();
    let mut count = 0;
    for batch in batches.iter().filter(|batch| reads(topics, view, batch)) {
        let position = next.entry(batch.partition.clone()).or_insert(0);
        count += batch.records.iter().map(|record| u64::from(record.offset < *position)).sum::<u64>();
        *position = batch.next_offset.max(*position);
    }
    count
}

fn move_positions(
    transaction: &Transaction<'_>,
    topics: &ViewTopics,
    view: ViewName,
    batches: &[ConsumedBatch],
    of_view: &mut PositionMap,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let mut moved = BTreeMap::new();
    for batch in batches.iter().filter(|batch| reads(topics, view, batch)) {
        let position = of_view.entry(batch.partition.clone()).or_insert(0);
        if batch.next_offset > *position {
            *position = batch.next_offset;
            moved.insert(batch.partition.clone(), batch.next_offset);
        }
    }
    let mut statement = transaction.prepare_cached(
        "INSERT INTO view_positions (view, topic, partition, next_offset, moved_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (view, topic, partition) DO UPDATE SET next_offset = excluded.next_offset, moved_at = excluded.moved_at",
    )?;
    for (partition, next_offset) in moved {
        statement.execute((
            view.as_str(),
            &*partition.topic,
            partition.partition,
            next_offset,
            now.as_micros(),
        ))?;
    }
    Ok(())
}

fn reads(topics: &ViewTopics, view: ViewName, batch: &ConsumedBatch) -> bool {
    topics.content_of(&batch.partition.topic).is_some_and(|content| view.folds(content))
}

fn read_positions(connection: &Connection) -> rusqlite::Result<AllPositions> {
    let mut positions = AllPositions::new();
    let mut statement =
        connection.prepare("SELECT view, topic, partition, next_offset FROM view_positions")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let view: String = row.get(0)?;
        let topic: String = row.get(1)?;
        // A view that a newer program knew: its rows are left alone.
        let Ok(view) = view.parse::<ViewName>() else { continue };
        positions.entry(view).or_default().insert(TopicPartition::new(topic, row.get(2)?), row.get(3)?);
    }
    Ok(positions)
}

fn begin(connection: &mut Connection) -> Result<Transaction<'_>, ViewError> {
    connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|source| ViewError::Transaction { step: "begin", source })
}

fn commit(transaction: Transaction<'_>) -> Result<(), ViewError> {
    transaction.commit().map_err(|source| ViewError::Transaction { step: "commit", source })
}
