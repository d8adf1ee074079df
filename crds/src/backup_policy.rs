//! `spec.backup` of a TaskStoreCluster: where its backups go, when they are made and how long they stay.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::destination::Destination;
use crate::schedule::{Malformed, Schedule};

/// Where a cluster's backups go, when they are made and how long they stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupPolicy {
    /// The bucket that every backup of this cluster goes to, in a folder of its own. It is checked before the
    /// first backup; what is missing is said in the condition BackupReady.
    pub destination: Destination,

    /// When a backup is made: minute, hour, day of month, month and day of week, as in cron, like `0 3 * * *`;
    /// at most 128 characters. However many runs an outage takes, one is made up for. No run begins while a
    /// backup is under way. Default none: backups are made by hand only. May change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub schedule: Option<String>,

    /// The IANA time zone that the schedule is read in, like `Europe/Berlin`; at most 64 characters. A time that
    /// its clocks skip is left out that day, one that they repeat comes twice. Default UTC. May change.
    #[serde(default = "default_time_zone")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,

    /// Stops the schedule; backups by hand and log shipping go on. Default false. May change: once it is
    /// false again, one run is made up for.
    #[serde(default)]
    pub suspend: bool,

    /// Which backups stay in the bucket, of all that this cluster has made. The newest one and those that a
    /// TaskStoreRestore reads always stay. Default: the newest 14.
    #[serde(default)]
    pub keep: Keep,

    /// Ships committed entries behind the newest backup every few seconds, so that a disaster loses seconds and
    /// a restore can go to any moment since the oldest backup. Default true. May change.
    #[serde(default = "default_log_shipping")]
    pub log_shipping: bool,

    /// How often the newest backup and the log behind it are restored in a drill: in a pod of its own with the
    /// members' resources, which joins nothing and keeps nothing. Only a drill sets BackupVerified. Hours, minutes
    /// and seconds, 1m to 8760h. Default 24h, and once after the first backup. May change.
    #[serde(default = "default_drill_every")]
    #[schemars(length(min = 1, max = 16))]
    pub drill_every: String,

    /// How many bytes a second a backup may write, and then read back; at least 64Ki. Default none: as fast as it
    /// goes. May change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second_max: Option<Quantity>,
}

impl BackupPolicy {
    /// None without a schedule.
    pub fn schedule(&self) -> Option<Result<Schedule, Malformed>> {
        let fields = self.schedule.as_ref()?;
        Some(Schedule::parse(fields, &self.time_zone))
    }
}

impl Default for BackupPolicy {
    fn default() -> Self {
        Self {
            destination: Destination::default(),
            schedule: None,
            time_zone: default_time_zone(),
            suspend: false,
            keep: Keep::default(),
            log_shipping: default_log_shipping(),
            drill_every: default_drill_every(),
            bytes_per_second_max: None,
        }
    }
}

/// Which backups stay in the bucket. One that is beyond either bound goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Keep {
    /// As many of the newest, 1 to 1000. Default 14. May change.
    #[serde(default = "default_keep_count")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: i32,

    /// None that is older than so many days, 1 to 3650. Default none: any age. May change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3650))]
    pub days: Option<i32>,
}

impl Default for Keep {
    fn default() -> Self {
        Self {
            count: default_keep_count(),
            days: None,
        }
    }
}

fn default_time_zone() -> String {
    "UTC".into()
}

fn default_drill_every() -> String {
    "24h".into()
}

fn default_log_shipping() -> bool {
    true
}

fn default_keep_count() -> i32 {
    14
}
