//! `kubectl taskstore plan`: what the operator would do next, by its own plan, and what it waits for.

use anyhow::Result;
use crds::conditions::get;
use crds::status::Operation;
use crds::{ConditionType, Reason, TaskStoreCluster, Violation};
use jiff::Timestamp;

use super::Place;
use super::look::look;
use crate::plan::action::list;
use crate::plan::explain::clock;
use crate::plan::{Action, Plan, Progress, plan};

pub async fn run(place: &Place) -> Result<String> {
    let violations = crds::validate(&place.cluster, None);
    if !violations.is_empty() {
        return Ok(refused(&violations));
    }
    if let Some(words) = template_refused(&place.cluster) {
        return Ok(format!("The operator does nothing: {words}\n"));
    }
    let observed = look(place).await?;
    let plan = plan(&place.cluster, &observed, Timestamp::now());
    Ok(words(&place.cluster, &plan))
}

fn refused(violations: &[Violation]) -> String {
    let mut text = String::from("The operator does nothing until the spec is put right:\n");
    for violation in violations {
        text.push_str(&format!("  {}: {}\n", violation.field, violation.message));
    }
    text
}

/// Whether a template is a pod is found by a dry run, which is the operator's: its word is taken.
fn template_refused(cluster: &TaskStoreCluster) -> Option<&str> {
    let status = cluster.status.as_ref()?;
    let said = get(&status.conditions, ConditionType::Progressing)?;
    let is_about_this = said.reason == Reason::InvalidSpec.as_str()
        && status.observed_generation == cluster.metadata.generation;
    is_about_this.then_some(said.message.as_str())
}

/// A plan for people to read.
pub fn words(cluster: &TaskStoreCluster, plan: &Plan) -> String {
    let mut text = String::new();
    let recorded = Progress::recorded(cluster);
    if plan.must_record(cluster) {
        text.push_str("The operator first writes to status:\n");
        for line in news(&recorded, &plan.progress) {
            text.push_str(&format!("  {line}\n"));
        }
    }
    if !plan.actions.is_empty() {
        text.push_str(match plan.must_record(cluster) {
            true => "Then, unless the world has moved by then, it would:\n",
            false => "The operator would:\n",
        });
        for action in &plan.actions {
            let why = action.is_safe_because();
            let unless = match is_about_bucket(action) {
                true => ", unless it was ordered before, which only the operator knows",
                false => "",
            };
            text.push_str(&format!("  {action}{unless}\n    safe: {why}\n"));
        }
    }
    if !plan.waiting.is_empty() {
        text.push_str("It waits:\n");
        for waiting in &plan.waiting {
            text.push_str(&format!("  {}: {}\n", waiting.reason(), waiting.words()));
        }
    }
    if text.is_empty() {
        text.push_str("The operator would do nothing: all is as the spec asks.\n");
    }
    if let Some(at) = plan.wake_at {
        text.push_str(&format!("Without news it looks again at {}.\n", clock(at)));
    }
    text
}

/// Whether the operator remembers by itself that it has ordered this.
fn is_about_bucket(action: &Action) -> bool {
    matches!(
        action,
        Action::CheckDestination { .. }
            | Action::OrderBackup { .. }
            | Action::PruneBackups { .. }
            | Action::ShipLog { .. }
            | Action::StopShipping { .. }
    )
}

/// What of the record changes, a line each.
fn news(before: &Progress, after: &Progress) -> Vec<String> {
    let mut lines = Vec::new();
    if before.identity != after.identity {
        lines.push(match &after.identity {
            Some(known) => format!(
                "identity: cluster {}, incarnation {}, founders {}{}",
                known.cluster_id,
                known.incarnation,
                list(&known.founders),
                if known.initialized {
                    ", initialized"
                } else {
                    ""
                }
            ),
            None => "identity: none".to_owned(),
        });
    }
    if before.operation != after.operation {
        lines.push(match &after.operation {
            Some(operation) => format!("operation: {}", self::operation(operation)),
            None => "operation: none, it is done".to_owned(),
        });
    }
    if before.membership != after.membership {
        let voters = after.membership.as_ref().map(|known| list(&known.voters));
        lines.push(format!("membership: voters {}", voters.unwrap_or_default()));
    }
    if before.replacements != after.replacements {
        lines.push("replacements: one more begins".to_owned());
    }
    if before.recovery != after.recovery {
        lines.push(match &after.recovery {
            Some(_) => "recovery: what is left of a lost majority".to_owned(),
            None => "recovery: none".to_owned(),
        });
    }
    if before.backup != after.backup {
        lines.push("backup: how far schedule, shipping and drills are".to_owned());
    }
    if before.restored != after.restored {
        lines.push("restored: what the cluster began with".to_owned());
    }
    lines
}

/// `ScaleOut, step CatchUp, m4,m5, since …`
pub fn operation(operation: &Operation) -> String {
    let mut text = format!("{:?}, step {:?}", operation.kind, operation.step);
    if !operation.members.is_empty() {
        text.push_str(&format!(", {}", list(&operation.members)));
    }
    if let Some(replaced) = &operation.replaces {
        text.push_str(&format!(", replaces {}", list([replaced])));
    }
    let since = clock(operation.started_at.0);
    text.push_str(&format!(", since {since}"));
    text
}
