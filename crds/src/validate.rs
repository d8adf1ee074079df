//! The rules of a TaskStoreCluster, each once: as CEL for the API server and as a pure function for us.
//!
//! Expected flow: `schema::cluster_crd` writes [`RULES`] into the CRD; the operator calls [`validate`] in every
//! reconcile, because an object may be older than a rule. `cases` holds one table that both must agree on.
//!
//! Caveats: a transition rule is skipped by the API server when its old or new value is absent, so all of
//! them stand on `spec`, which is always there, and test optional fields with `has()` on both sides.
//! A template is an open object in the schema, so its rules (`template`) are the pure function's alone, and so
//! is what the fields of a schedule may be (`backup`).
//! `validate` with `old: None` checks an object by itself, as on creation.

mod backup;
#[doc(hidden)]
pub mod cases;
mod template;

use std::borrow::Cow;
use std::cmp::Ordering;

use kube::ResourceExt;

use crate::cluster::TaskStoreCluster;
use crate::names::{CLUSTER_NAME_CHARS_MAX, is_own_secret};
use crate::{duration, quantity, schedule};

/// Smallest log budget, in bytes: four segments, because a snapshot is cut at a quarter of it.
pub const LOG_BUDGET_BYTES_MIN: u64 = 256 << 20;
/// Twice what a member may hold in memory before its image has it (`IMAGE_DIRTY_BYTES_MAX` of the node).
const IMAGE_ROOM_BYTES: u64 = 512 << 20;

/// A restart of a member, or of its node's kubelet, is over by then.
pub const REPLACEMENT_AFTER_SECONDS_MIN: u64 = 10;
pub const REPLACEMENT_AFTER_SECONDS_MAX: u64 = 24 * 3600;
/// As many times as status keeps.
pub const REPLACEMENTS_PER_HOUR_MAX: i32 = 10;

fn volume_bytes_min(log_budget_bytes: u64) -> u64 {
    log_budget_bytes
        .saturating_mul(2)
        .saturating_add(IMAGE_ROOM_BYTES)
}

/// A broken rule: the field as a path, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub field: Cow<'static, str>,
    pub message: Cow<'static, str>,
}

/// The node of the schema that carries a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The whole object; only here CEL sees `metadata.name`.
    Object,
    Spec,
}

/// One rule in its two forms.
pub struct Rule {
    pub scope: Scope,
    /// The field that is reported.
    pub field: &'static str,
    /// True when the object keeps the rule.
    pub cel: &'static str,
    pub message: &'static str,
    /// The same as `cel`; the old object is there on updates only.
    keeps: fn(new: &TaskStoreCluster, old: Option<&TaskStoreCluster>) -> bool,
}

/// Every rule that the schema's own bounds cannot say.
pub const RULES: &[Rule] = &[
    Rule {
        scope: Scope::Object,
        field: "metadata.name",
        cel: "size(self.metadata.name) <= 46",
        message: "metadata.name must have at most 46 characters: names of pods and Services are made from it and hold 63",
        keeps: |new, _| new.name_any().chars().count() <= CLUSTER_NAME_CHARS_MAX,
    },
    Rule {
        scope: Scope::Object,
        field: "metadata.name",
        cel: "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        message: "metadata.name must be a DNS label that starts with a letter (a-z, 0-9 and '-'): Services are named after it",
        keeps: |new, _| is_service_name(&new.name_any()),
    },
    Rule {
        scope: Scope::Object,
        field: "metadata.name",
        cel: "!self.metadata.name.endsWith('-peers')",
        message: "metadata.name must not end with '-peers': the peer Service of another cluster may have that name",
        keeps: |new, _| !new.name_any().ends_with("-peers"),
    },
    Rule {
        scope: Scope::Object,
        field: "spec.tls.secretName",
        cel: "!has(self.spec.tls) || !has(self.spec.tls.secretName) || !self.spec.tls.secretName.startsWith(self.metadata.name) || !self.spec.tls.secretName.substring(size(self.metadata.name)).matches('^-(ca|client-tls|[0-9]+-[0-9]+-tls)$')",
        message: "spec.tls.secretName must not be a Secret that the operator makes for this cluster; leave it out to use the cluster's own CA",
        keeps: |new, _| {
            let secret = new.spec.tls.secret_name.as_deref();
            !secret.is_some_and(|secret| is_own_secret(&new.name_any(), secret))
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.replicas",
        cel: "self.replicas in [1, 3, 5, 7]",
        message: "replicas must be 1, 3, 5 or 7: an even number of voters survives no more failures than one less",
        keeps: |new, _| [1, 3, 5, 7].contains(&new.spec.replicas),
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.storage.logBudget",
        cel: "isQuantity(string(self.storage.logBudget)) && quantity(string(self.storage.logBudget)).compareTo(quantity('256Mi')) >= 0",
        message: "storage.logBudget must be a quantity of at least 256Mi: a member's log needs four segments of 64Mi",
        keeps: |new, _| {
            quantity::units(&new.spec.storage.log_budget)
                .is_some_and(|bytes| bytes >= LOG_BUDGET_BYTES_MIN)
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.storage.size",
        cel: "isQuantity(string(self.storage.size)) && (!isQuantity(string(self.storage.logBudget)) || quantity(string(self.storage.size)).compareTo(quantity(string(self.storage.logBudget)).add(quantity(string(self.storage.logBudget))).add(quantity('512Mi'))) >= 0)",
        message: "storage.size must be a quantity of at least twice storage.logBudget and 512Mi: snapshots need as much room as the log, and what waits in memory needs room in the image",
        keeps: |new, _| {
            let storage = &new.spec.storage;
            match (
                quantity::units(&storage.size),
                quantity::units(&storage.log_budget),
            ) {
                (None, _) => false,
                (Some(_), None) => true,
                (Some(size), Some(budget)) => size >= volume_bytes_min(budget),
            }
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.storage.size",
        cel: "!isQuantity(string(self.storage.size)) || !isQuantity(string(oldSelf.storage.size)) || quantity(string(self.storage.size)).compareTo(quantity(string(oldSelf.storage.size))) >= 0",
        message: "storage.size may only grow: a volume cannot be made smaller",
        keeps: |new, old| {
            old.is_none_or(|old| {
                quantity::compare(&new.spec.storage.size, &old.spec.storage.size)
                    != Some(Ordering::Less)
            })
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.storage.className",
        cel: "has(self.storage.className) == has(oldSelf.storage.className) && (!has(self.storage.className) || self.storage.className == oldSelf.storage.className)",
        message: "storage.className may not change: a volume cannot change its class",
        keeps: |new, old| {
            old.is_none_or(|old| new.spec.storage.class_name == old.spec.storage.class_name)
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.storage.accessMode",
        cel: "self.storage.accessMode == oldSelf.storage.accessMode",
        message: "storage.accessMode may not change: a volume cannot change how it is mounted",
        keeps: |new, old| {
            old.is_none_or(|old| new.spec.storage.access_mode == old.spec.storage.access_mode)
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.storage.logBudget",
        cel: "!isQuantity(string(self.storage.logBudget)) || !isQuantity(string(oldSelf.storage.logBudget)) || quantity(string(self.storage.logBudget)).compareTo(quantity(string(oldSelf.storage.logBudget))) == 0",
        message: "storage.logBudget may not change: the log's disk is reserved when a volume is formatted",
        keeps: |new, old| {
            old.is_none_or(|old| {
                let order =
                    quantity::compare(&new.spec.storage.log_budget, &old.spec.storage.log_budget);
                order.is_none_or(Ordering::is_eq)
            })
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.restoredBy",
        cel: "has(self.restoredBy) == has(oldSelf.restoredBy) && (!has(self.restoredBy) || self.restoredBy == oldSelf.restoredBy)",
        message: "restoredBy may not change: a cluster begins once",
        keeps: |new, old| old.is_none_or(|old| new.spec.restored_by == old.spec.restored_by),
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.backup.drillEvery",
        cel: "!has(self.backup) || (self.backup.drillEvery.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$') && duration(self.backup.drillEvery) >= duration('1m') && duration(self.backup.drillEvery) <= duration('8760h'))",
        message: "backup.drillEvery must be hours, minutes and seconds like 30m or 24h, from 1m to 8760h",
        keeps: |new, _| {
            backup::of(new).is_none_or(|policy| {
                duration::seconds(&policy.drill_every)
                    .is_some_and(|seconds| (60..=8_760 * 3600).contains(&seconds))
            })
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.replacement.after",
        cel: "self.replacement.after != '' && self.replacement.after.matches('^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,5}s)?$') && duration(self.replacement.after) >= duration('10s') && duration(self.replacement.after) <= duration('24h')",
        message: "replacement.after must be hours, minutes and seconds like 90s or 1h30m, from 10s to 24h: sooner, a restart would be taken for a loss",
        keeps: |new, _| {
            duration::seconds(&new.spec.replacement.after).is_some_and(|seconds| {
                (REPLACEMENT_AFTER_SECONDS_MIN..=REPLACEMENT_AFTER_SECONDS_MAX).contains(&seconds)
            })
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.replacement.maxPerHour",
        cel: "self.replacement.maxPerHour >= 1 && self.replacement.maxPerHour <= 10",
        message: "replacement.maxPerHour must be 1 to 10",
        keeps: |new, _| {
            (1..=REPLACEMENTS_PER_HOUR_MAX).contains(&new.spec.replacement.max_per_hour)
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.resources.requests",
        cel: "!('cpu' in self.resources.requests) || !has(self.resources.limits) || !('cpu' in self.resources.limits) || !isQuantity(string(self.resources.requests['cpu'])) || !isQuantity(string(self.resources.limits['cpu'])) || quantity(string(self.resources.requests['cpu'])).compareTo(quantity(string(self.resources.limits['cpu']))) <= 0",
        message: "resources.requests: cpu must not be above resources.limits",
        keeps: |new, _| requests_within_limits(new, "cpu"),
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.resources.requests",
        cel: "!('memory' in self.resources.requests) || !has(self.resources.limits) || !('memory' in self.resources.limits) || !isQuantity(string(self.resources.requests['memory'])) || !isQuantity(string(self.resources.limits['memory'])) || quantity(string(self.resources.requests['memory'])).compareTo(quantity(string(self.resources.limits['memory']))) <= 0",
        message: "resources.requests: memory must not be above resources.limits",
        keeps: |new, _| requests_within_limits(new, "memory"),
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.backup.destination.url",
        cel: "!has(self.backup) || ['s3://', 'gs://', 'azure://', 'file:///'].exists(scheme, self.backup.destination.url.startsWith(scheme) && size(self.backup.destination.url) > size(scheme))",
        message: "backup.destination.url must be s3://bucket/prefix, gs://bucket/prefix, azure://container/prefix or file:///folder",
        keeps: |new, _| {
            let url = backup::of(new).map(|policy| policy.destination.url.as_str());
            url.is_none_or(backup::is_url)
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.backup.destination.account",
        cel: "!has(self.backup) || has(self.backup.destination.account) == self.backup.destination.url.startsWith('azure://')",
        message: "backup.destination.account is required for azure:// and for nothing else",
        keeps: |new, _| {
            backup::of(new).is_none_or(|policy| {
                let is_azure = policy.destination.url.starts_with("azure://");
                policy.destination.account.is_some() == is_azure
            })
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.backup.destination.endpoint",
        cel: "!has(self.backup) || !has(self.backup.destination.endpoint) || (self.backup.destination.endpoint.matches('^https?://[^/?#@]+/?$') && !self.backup.destination.url.startsWith('file://'))",
        message: "backup.destination.endpoint must be http:// or https://, a host and a port, and is not for file:///",
        keeps: |new, _| {
            backup::of(new).is_none_or(|policy| backup::has_good_endpoint(&policy.destination))
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.backup.schedule",
        cel: "!has(self.backup) || !has(self.backup.schedule) || self.backup.schedule.matches('^[0-9A-Za-z*,/#-]+( [0-9A-Za-z*,/#-]+){4}$')",
        message: "backup.schedule must be five fields with a space between them: minute, hour, day of month, month, day of week, like 0 3 * * *",
        keeps: |new, _| {
            let fields = backup::of(new).and_then(|policy| policy.schedule.as_deref());
            fields.is_none_or(schedule::is_shaped)
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.backup.timeZone",
        cel: "!has(self.backup) || self.backup.timeZone.matches('^[A-Za-z][A-Za-z0-9_+/-]*$')",
        message: "backup.timeZone must be a name of the IANA database, like Europe/Berlin or UTC",
        keeps: |new, _| {
            backup::of(new).is_none_or(|policy| schedule::is_zone_shaped(&policy.time_zone))
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.backup.keep.count",
        cel: "!has(self.backup) || (self.backup.keep.count >= 1 && self.backup.keep.count <= 1000)",
        message: "backup.keep.count must be 1 to 1000",
        keeps: |new, _| {
            backup::of(new).is_none_or(|policy| (1..=BACKUPS_KEPT_MAX).contains(&policy.keep.count))
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.backup.keep.days",
        cel: "!has(self.backup) || !has(self.backup.keep.days) || (self.backup.keep.days >= 1 && self.backup.keep.days <= 3650)",
        message: "backup.keep.days must be 1 to 3650",
        keeps: |new, _| {
            let days = backup::of(new).and_then(|policy| policy.keep.days);
            days.is_none_or(|days| (1..=BACKUP_DAYS_MAX).contains(&days))
        },
    },
    Rule {
        scope: Scope::Spec,
        field: "spec.backup.bytesPerSecondMax",
        cel: "!has(self.backup) || !has(self.backup.bytesPerSecondMax) || (isQuantity(string(self.backup.bytesPerSecondMax)) && quantity(string(self.backup.bytesPerSecondMax)).compareTo(quantity('64Ki')) >= 0)",
        message: "backup.bytesPerSecondMax must be a quantity of at least 64Ki",
        keeps: |new, _| {
            let bound = backup::of(new).and_then(|policy| policy.bytes_per_second_max.as_ref());
            bound.is_none_or(|bound| {
                quantity::units(bound).is_some_and(|bytes| bytes >= BACKUP_BYTES_PER_SECOND_MIN)
            })
        },
    },
];

/// How slow a backup may be made: slower, a small store would take days.
pub const BACKUP_BYTES_PER_SECOND_MIN: u64 = 64 << 10;
/// As in `keep`.
pub const BACKUPS_KEPT_MAX: i32 = 1000;
pub const BACKUP_DAYS_MAX: i32 = 3650;

/// Every rule that the object breaks, in the order of [`RULES`]; with `old`, the rules of a change too. Then
/// what no rule of the API server's can say: why its template is no pod to run a member in.
pub fn validate(new: &TaskStoreCluster, old: Option<&TaskStoreCluster>) -> Vec<Violation> {
    let broken = RULES.iter().filter(|rule| !(rule.keeps)(new, old));
    let mut violations: Vec<Violation> = broken
        .map(|rule| Violation {
            field: rule.field.into(),
            message: rule.message.into(),
        })
        .collect();
    violations.extend(template::violations(new));
    if violations.is_empty() {
        violations.extend(backup::violations(new));
    }
    violations
}

fn is_service_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn requests_within_limits(cluster: &TaskStoreCluster, resource: &str) -> bool {
    let resources = &cluster.spec.resources;
    match (
        resources.requests.get(resource),
        resources.limits.get(resource),
    ) {
        (Some(request), Some(limit)) => {
            quantity::compare(request, limit) != Some(Ordering::Greater)
        }
        _ => true,
    }
}
