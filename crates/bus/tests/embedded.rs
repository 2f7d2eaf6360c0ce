//! The embedded engine keeps every promise of the conformance suite, and some of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod conformance;

use std::sync::Arc;
use std::time::Duration;

use conformance::{Engine, conformance_suite};
use farol_bus::Bus;
use farol_bus::embedded::{EmbeddedBus, EmbeddedOptions};

struct Embedded {
    dir: tempfile::TempDir,
    bus: Arc<EmbeddedBus>,
}

async fn embedded() -> Embedded {
    let dir = tempfile::tempdir().unwrap();
    let bus = open(&dir);
    Embedded { dir, bus }
}

fn open(dir: &tempfile::TempDir) -> Arc<EmbeddedBus> {
    let mut options = EmbeddedOptions::new(dir.path());
    options.maintenance_interval = Duration::from_millis(50);
    EmbeddedBus::open(options).unwrap().0
}

impl Engine for Embedded {
    fn bus(&self) -> Arc<dyn Bus> {
        self.bus.clone()
    }

    async fn restart(&mut self) {
        self.bus.close().await.unwrap();
        self.bus = open(&self.dir);
    }
}

conformance_suite!(
    embedded:
    a_topic_is_listed_and_refuses_to_be_made_twice,
    a_topic_takes_another_configuration_and_keeps_its_records_and_it_over_a_restart,
    unusable_topics_are_refused_with_the_reason,
    a_record_comes_back_with_everything_it_carried,
    records_of_a_key_keep_their_order_and_their_partition,
    keys_go_where_kafkas_clients_put_them,
    metadata_tells_where_each_record_stands,
    records_that_are_too_large_are_refused_and_nothing_is_stored,
    a_waiting_poll_is_woken_by_a_record,
    a_poll_that_is_dropped_loses_no_record,
    a_poll_takes_no_more_than_its_bytes_and_is_fair,
    a_standalone_consumer_starts_where_it_is_told_and_seeks,
    offsets_are_found_by_place_and_by_time,
    a_compacted_topic_keeps_the_newest_of_each_key,
    records_and_topics_are_there_after_a_restart,
    a_member_gets_every_partition_and_its_commits_are_kept,
    without_a_commit_the_settings_say_where_to_start,
    a_leaving_members_partitions_resume_from_its_commit,
    a_moving_partition_is_revoked_before_it_is_assigned,
    a_member_that_polls_too_rarely_is_expelled_fenced_and_comes_back,
    every_record_is_processed_while_members_come_and_go,
    records_and_offsets_of_a_transaction_appear_together,
    an_aborted_transaction_is_never_seen,
    a_transaction_with_a_failed_send_can_only_be_aborted,
    a_newer_producer_fences_the_older_one,
    a_member_that_lost_its_partition_cannot_commit_a_transaction,
);
