//! openraft's settings. Several of its defaults switch promised properties off without a word; the ones
//! named here are not optional.

use std::sync::Arc;

use openraft::{Config, ConfigError, SnapshotPolicy};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    pub heartbeat_ms: u64,
    pub election_ms_min: u64,
    pub election_ms_max: u64,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            heartbeat_ms: 100,
            election_ms_min: 400,
            election_ms_max: 700,
        }
    }
}

pub fn openraft(cluster_id: &str, timings: Timings) -> Result<Arc<Config>, ConfigError> {
    let config = Config {
        cluster_name: cluster_id.to_owned(),
        heartbeat_interval: timings.heartbeat_ms,
        election_timeout_min: timings.election_ms_min,
        election_timeout_max: timings.election_ms_max,
        // The default lets a restarted leader serve without an election, from an image that lags.
        enable_leader_restore: Some(false),
        // A member that was cut off must not unseat a healthy leader when it comes back.
        enable_pre_vote: Some(true),
        // A shorter log than a follower once had is a lost disk, never a reason to go on.
        allow_log_reversion: Some(false),
        // When to cut and what to purge is our rule: a snapshot counts only once its file is verified.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // Bytes bound a batch (the log reader sees to it); this only keeps the count sane.
        max_payload_entries: 1_024,
        ..Config::default()
    };
    config.validate().map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_that_are_not_optional_are_set() {
        let config = openraft("c", Timings::default()).unwrap();
        assert_eq!(config.enable_leader_restore, Some(false));
        assert_eq!(config.enable_pre_vote, Some(true));
        assert_ne!(config.allow_log_reversion, Some(true));
        assert_eq!(config.snapshot_policy, SnapshotPolicy::Never);
        assert_eq!(config.max_in_snapshot_log_to_keep, u64::MAX);
        let times = (
            config.heartbeat_interval,
            config.election_timeout_min,
            config.election_timeout_max,
        );
        assert_eq!(times, (100, 400, 700));
    }

    #[test]
    fn timings_that_cannot_work_are_refused() {
        let slow_heart = Timings {
            heartbeat_ms: 500,
            ..Timings::default()
        };
        assert!(openraft("c", slow_heart).is_err());
    }
}
