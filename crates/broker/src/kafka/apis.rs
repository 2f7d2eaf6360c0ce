//! The table of the APIs that are served. ApiVersions answers from it, dispatch looks into it.
//!
//! The lowest versions are those of KIP-896, which every client since 2017 speaks; the highest those of the codec or, where
//! that says so, what this broker can honour.

use super::api::Api;
use super::{
    api_versions, cluster, configs, fetch, find_coordinator, group_admin, list_offsets, membership, metadata,
    offsets, produce, records, sasl, topic_partitions, topics, transactions,
};

/// Every API that is served, by key.
pub(super) struct Apis {
    rows: Vec<Api>,
    /// Where the row of a key is.
    places: Vec<Option<usize>>,
}

/// The rows.
fn rows() -> Vec<Api> {
    vec![
        // Versions 0 to 2 carry older batch formats and are refused, but must be claimed: without them librdkafka takes the
        // broker for one that knows no compression (KAFKA-18659).
        Api::new(3..=13, produce::produce).advertised_from(0),
        Api::new(4..=17, fetch::fetch),
        Api::new(1..=10, list_offsets::list_offsets),
        Api::new(0..=13, metadata::metadata),
        Api::new(2..=9, offsets::offset_commit),
        Api::new(1..=9, offsets::offset_fetch),
        Api::new(0..=6, find_coordinator::find_coordinator),
        Api::new(0..=9, membership::join_group),
        Api::new(0..=4, membership::heartbeat),
        Api::new(0..=5, membership::leave_group),
        Api::new(0..=5, membership::sync_group),
        Api::new(0..=6, group_admin::describe_groups),
        Api::new(0..=5, group_admin::list_groups),
        Api::new(0..=4, api_versions::api_versions).before_authentication(),
        // Version 0 is for clients from before SaslAuthenticate. librdkafka up to 2.0 takes a broker without it for one that knows no
        // handshake at all.
        Api::new(0..=1, sasl::sasl_handshake).before_authentication(),
        Api::new(0..=2, sasl::sasl_authenticate).before_authentication(),
        Api::new(2..=7, topics::create_topics),
        Api::new(1..=6, topics::delete_topics),
        Api::new(0..=3, topics::create_partitions),
        Api::new(0..=0, topic_partitions::describe_topic_partitions),
        Api::new(0..=2, records::delete_records),
        Api::new(2..=4, records::offset_for_leader_epoch),
        Api::new(1..=4, configs::describe_configs),
        Api::new(0..=2, configs::alter_configs),
        Api::new(0..=1, configs::incremental_alter_configs),
        Api::new(0..=2, cluster::describe_cluster),
        Api::new(1..=4, cluster::describe_log_dirs),
        Api::new(1..=3, cluster::describe_acls),
        Api::new(0..=5, transactions::init_producer_id),
        Api::new(0..=3, transactions::add_partitions_to_txn),
        Api::new(0..=4, transactions::add_offsets_to_txn),
        Api::new(0..=4, transactions::end_txn),
        Api::new(0..=4, transactions::txn_offset_commit),
        Api::new(0..=0, transactions::describe_producers),
        Api::new(0..=0, transactions::describe_transactions),
        Api::new(0..=1, transactions::list_transactions),
        Api::new(0..=2, group_admin::delete_groups),
        Api::new(0..=0, offsets::offset_delete),
    ]
}

impl Apis {
    /// The table.
    pub(super) fn new() -> Self {
        let mut rows = rows();
        rows.sort_by_key(|row| row.key as i16);
        let mut places = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            let key = usize::try_from(row.key as i16).unwrap_or(0);
            if places.len() <= key {
                places.resize(key + 1, None);
            }
            if let Some(slot) = places.get_mut(key) {
                *slot = Some(place);
            }
        }
        Self { rows, places }
    }

    /// Every row, by key.
    pub(super) fn rows(&self) -> &[Api] {
        &self.rows
    }

    /// The row of a key as it came, and where it is in [`Apis::rows`].
    pub(super) fn find(&self, key: i16) -> Option<(usize, &Api)> {
        let place = (*self.places.get(usize::try_from(key).ok()?)?)?;
        Some((place, self.rows.get(place)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_by_its_key_and_no_key_is_twice() {
        let apis = Apis::new();
        for (place, row) in apis.rows().iter().enumerate() {
            assert_eq!(apis.find(row.key as i16).map(|(found, _)| found), Some(place), "{:?}", row.key);
            assert!(row.min_version <= row.max_version && row.advertised_min_version <= row.min_version);
        }
        for key in [-1, i16::MIN, 4, 1000, i16::MAX] {
            assert!(apis.find(key).is_none(), "{key}");
        }
    }
}
