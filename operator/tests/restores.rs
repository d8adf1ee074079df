//! What a TaskStoreRestore comes to, by table and with an operator that dies at every effect.

use crds::backup::{BackupPhase, TaskStoreBackupSpec};
use crds::conditions::{self, State};
use crds::destination::{Destination, Lineage};
use crds::names::label;
use crds::restore::{BucketSource, RestorePhase};
use crds::status::{LogId, Restored};
use crds::{
    ConditionType, Reason, TaskStoreBackup, TaskStoreBackupStatus, TaskStoreCluster,
    TaskStoreClusterSpec, TaskStoreRestore,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use operator::restores::{Found, Next, next};
use serde_json::json;

fn now() -> Timestamp {
    Timestamp::from_second(1_795_000_000).unwrap()
}

fn restore(source: serde_json::Value) -> TaskStoreRestore {
    serde_json::from_value(json!({
        "apiVersion": "taskstore.dev/v1alpha1",
        "kind": "TaskStoreRestore",
        "metadata": {"name": "r", "namespace": "shop", "uid": "r-uid"},
        "spec": {"source": source, "cluster": {"name": "demo", "spec": {"replicas": 1}}},
    }))
    .unwrap()
}

fn from_bucket() -> TaskStoreRestore {
    restore(json!({"bucket": {
        "destination": {"url": "s3://bucket"},
        "lineage": {"clusterId": "lost", "incarnation": 4},
    }}))
}

fn from_backup() -> TaskStoreRestore {
    restore(json!({"backup": "b"}))
}

fn made() -> TaskStoreCluster {
    let mut cluster = TaskStoreCluster::new("demo", TaskStoreClusterSpec::default());
    cluster.metadata.uid = Some("c-uid".into());
    let label = (label::RESTORE_UID.to_owned(), "r-uid".to_owned());
    cluster.metadata.labels = Some([label].into());
    cluster
}

fn says(cluster: &mut TaskStoreCluster, kind: ConditionType, state: State, reason: Reason) {
    let status = cluster.status.get_or_insert_default();
    let at = Time(now());
    conditions::set(
        &mut status.conditions,
        kind,
        state,
        reason,
        "words",
        None,
        &at,
    );
}

fn fill(cluster: &mut TaskStoreCluster) {
    cluster.status.get_or_insert_default().restored = Some(Restored {
        parent: Lineage::default(),
        backup: "b".into(),
        log_id: LogId { term: 1, index: 2 },
        restored_to: Time(now()),
        state_hash: "5a".into(),
        tasks: 1,
    });
}

fn backup(phase: BackupPhase) -> TaskStoreBackup {
    let spec = TaskStoreBackupSpec {
        cluster: "demo".into(),
    };
    let mut backup = TaskStoreBackup::new("b", spec);
    backup.status = Some(TaskStoreBackupStatus {
        phase,
        destination: Some(Destination {
            url: "s3://bucket".into(),
            ..Destination::default()
        }),
        lineage: Some(Lineage {
            cluster_id: "lost".into(),
            incarnation: 4,
        }),
        ..TaskStoreBackupStatus::default()
    });
    backup
}

fn ask(
    restore: &TaskStoreRestore,
    cluster: Option<TaskStoreCluster>,
    backup: Option<TaskStoreBackup>,
) -> Next {
    next(restore, &Found { cluster, backup }, now())
}

/// The same restore after this was written.
fn then(mut restore: TaskStoreRestore, next: Next) -> TaskStoreRestore {
    restore.status = Some(next.status);
    restore
}

fn words(next: &Next) -> String {
    let status = &next.status;
    format!(
        "{:?} {}",
        status.phase,
        status.message.clone().unwrap_or_default()
    )
}

#[test]
fn a_backup_is_waited_for_and_gives_the_source() {
    let restore = from_backup();
    let missing = ask(&restore, None, None);
    assert_eq!(
        words(&missing),
        "Pending waiting for the TaskStoreBackup b to be there"
    );
    assert!(missing.looks_again && !missing.makes_cluster);
    let running = ask(&restore, None, Some(backup(BackupPhase::Running)));
    assert_eq!(
        words(&running),
        "Pending waiting for the TaskStoreBackup b to be complete"
    );
    let failed = ask(&restore, None, Some(backup(BackupPhase::Failed)));
    assert_eq!(words(&failed), "Failed the TaskStoreBackup b has failed");
    let complete = ask(&restore, None, Some(backup(BackupPhase::Completed)));
    let source = complete.status.source.expect("it is known");
    let expected = BucketSource {
        backup: Some("b".into()),
        ..from_bucket().spec.source.bucket.expect("the same bucket")
    };
    assert_eq!(source, expected);
}

#[test]
fn a_cluster_of_the_name_is_never_touched() {
    let restore = from_bucket();
    let theirs = TaskStoreCluster::new("demo", TaskStoreClusterSpec::default());
    let refused = ask(&restore, Some(theirs.clone()), None);
    assert_eq!(
        words(&refused),
        "Failed a TaskStoreCluster demo is there already"
    );
    assert!(refused.status.source.is_none(), "nobody begins with it");
    let recorded = ask(&restore, None, None);
    let restore = then(restore, recorded);
    let refused = ask(&restore, Some(theirs), None);
    assert_eq!(
        words(&refused),
        "Failed a TaskStoreCluster demo is there already"
    );
    let mut of_another = made();
    of_another.metadata.labels = Some([(label::RESTORE_UID.into(), "other".into())].into());
    assert_eq!(
        ask(&restore, Some(of_another), None).status.phase,
        RestorePhase::Failed
    );
    assert!(ask(&restore, None, None).makes_cluster);
}

#[test]
fn it_follows_the_cluster_that_it_made_to_its_end() {
    let restore = from_bucket();
    let recorded = ask(&restore, None, None);
    let restore = then(restore, recorded);
    let mut cluster = made();
    let restoring = ask(&restore, Some(cluster.clone()), None);
    assert_eq!(restoring.status.cluster_uid.as_deref(), Some("c-uid"));
    let restore = then(restore, restoring);

    let gone = ask(&restore, None, None);
    assert_eq!(
        words(&gone),
        "Failed the cluster was deleted before it served"
    );
    let mut again = cluster.clone();
    again.metadata.uid = Some("another".into());
    assert_eq!(
        ask(&restore, Some(again), None).status.phase,
        RestorePhase::Failed
    );

    says(
        &mut cluster,
        ConditionType::Progressing,
        State::True,
        Reason::Restoring,
    );
    assert_eq!(
        words(&ask(&restore, Some(cluster.clone()), None)),
        "Restoring words"
    );
    let mut refused = cluster.clone();
    says(
        &mut refused,
        ConditionType::Progressing,
        State::True,
        Reason::RestoreRefused,
    );
    assert_eq!(words(&ask(&restore, Some(refused), None)), "Failed words");

    fill(&mut cluster);
    assert_eq!(
        words(&ask(&restore, Some(cluster.clone()), None)),
        "Starting words"
    );
    says(
        &mut cluster,
        ConditionType::Ready,
        State::True,
        Reason::Serving,
    );
    let done = ask(&restore, Some(cluster.clone()), None);
    assert_eq!(words(&done), "Completed ");
    assert!(done.status.completed_at.is_some() && done.status.restored.is_some());
    let restore = then(restore, done.clone());
    assert_eq!(
        ask(&restore, None, None),
        done,
        "final whatever comes later"
    );
}

/// Runs to rest; the operator dies at the effect of this number, before it is done or after it.
fn run(dies_at: Option<(usize, bool)>) -> (TaskStoreRestore, Option<TaskStoreCluster>, usize) {
    let (mut restore, mut cluster, mut effects) = (from_backup(), None, 0);
    let mut makes = 0;
    for pass in 0..20 {
        let next = ask(
            &restore,
            cluster.clone(),
            Some(backup(BackupPhase::Completed)),
        );
        let mut happens = |world: &mut dyn FnMut()| {
            let death = dies_at.filter(|(at, _)| *at == effects);
            effects += 1;
            if !matches!(death, Some((_, false))) {
                world();
            }
            death.is_none()
        };
        let mut goes_on = true;
        if next.makes_cluster {
            goes_on = happens(&mut || {
                makes += 1;
                cluster = Some(made());
            });
        }
        if goes_on && restore.status.as_ref() != Some(&next.status) {
            happens(&mut || restore.status = Some(next.status.clone()));
        }
        // Meanwhile the cluster goes its way.
        if let Some(cluster) = &mut cluster {
            says(
                cluster,
                ConditionType::Progressing,
                State::True,
                Reason::Restoring,
            );
            if pass > 5 {
                fill(cluster);
            }
            if pass > 8 {
                says(cluster, ConditionType::Ready, State::True, Reason::Serving);
            }
        }
    }
    assert_eq!(makes, 1, "one cluster is made once");
    (restore, cluster, effects)
}

#[test]
fn an_operator_that_dies_at_any_effect_leaves_the_rest_to_the_next() {
    let (restore, cluster, effects) = run(None);
    assert!(effects >= 5, "{effects}");
    assert_eq!(
        restore.status.as_ref().map(|status| status.phase),
        Some(RestorePhase::Completed)
    );
    for at in 0..effects {
        for is_done in [false, true] {
            let (ended, theirs, _) = run(Some((at, is_done)));
            assert_eq!(
                (ended.status, theirs),
                (restore.status.clone(), cluster.clone()),
                "{at} {is_done}"
            );
        }
    }
}
