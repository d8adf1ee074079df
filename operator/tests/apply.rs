//! Effects against an API server that only stores: what is read again right before, and what is written.

mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use crds::{MemberId, TaskStoreCluster};
use operator::apply::{Scope, apply};
use operator::context::Context;
use operator::error::Error;
use operator::observe::{Observed, Start};
use operator::plan::Action;
use operator::plan::action::{Cost, Guard};
use operator::resources;
use serde_json::{Value, json};
use world::World;

const CLUSTER: &str = "/apis/taskstore.dev/v1alpha1/namespaces/shop/taskstoreclusters/demo";
const BUDGET: &str = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/demo";
const PODS: &str = "/api/v1/namespaces/shop/pods";
const SECRETS: &str = "/api/v1/namespaces/shop/secrets";

#[derive(Clone, Default)]
struct Server {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Method, path and body of every request that changes something.
    writes: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    fn put(&self, path: &str, object: Value) {
        self.objects.lock().unwrap().insert(path.into(), object);
    }

    fn writes_to(&self, start: &str) -> Vec<(String, Value)> {
        let writes = self.writes.lock().unwrap();
        writes
            .iter()
            .filter(|(what, _)| what.starts_with(start))
            .cloned()
            .collect()
    }
}

async fn answer(
    State(server): State<Server>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    let mut objects = server.objects.lock().unwrap();
    let mut path = uri.path().to_owned();
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    if method != Method::GET {
        let mut writes = server.writes.lock().unwrap();
        writes.push((format!("{method} {path}"), sent.clone()));
    }
    if method == Method::POST {
        path = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap());
    }
    let found = match method {
        Method::POST | Method::PUT => {
            objects.insert(path, sent.clone());
            Some(sent)
        }
        Method::DELETE => objects.remove(&path),
        _ => objects.get(&path).cloned(),
    };
    let absent = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": "NotFound", "code": 404, "message": "not found",
    });
    match found {
        Some(found) => (StatusCode::OK, Json(found)),
        None => (StatusCode::NOT_FOUND, Json(absent)),
    }
}

async fn serve() -> (Server, Context) {
    let server = Server::default();
    let router = axum::Router::new()
        .fallback(answer)
        .with_state(server.clone());
    let context = world::server::context(router).await;
    (server, context)
}

fn running() -> (TaskStoreCluster, Observed) {
    World::at_rest(3).look().expect("there is a cluster")
}

fn budget(cluster: &TaskStoreCluster, min_available: u32) -> Value {
    let mut budget = json!(resources::disruption_budget::build(
        cluster,
        min_available,
        false
    ));
    budget["metadata"]["generation"] = json!(1);
    budget["status"] = json!({
        "observedGeneration": 1, "expectedPods": 3, "currentHealthy": 3,
        "desiredHealthy": min_available, "disruptionsAllowed": 3 - min_available,
    });
    budget
}

/// Those of m1 to m3, all counted but perhaps m2.
fn pods(cluster: &TaskStoreCluster, is_m2_counted: bool) -> Value {
    let pod = |number: u32| {
        let identity = resources::pod::Identity {
            cluster_id: "c",
            member: MemberId::new(1, number),
            volume: "demo-1-1",
            volume_uid: "v",
            restore: None,
        };
        let is_voter = number != 2 || is_m2_counted;
        let mut pod = json!(resources::pod::build(
            cluster,
            &identity,
            "taskstore:1",
            Start::Serve,
            is_voter
        ));
        pod["status"] = json!({"phase": "Running"});
        pod["metadata"]["uid"] = json!(number.to_string());
        pod["metadata"]["resourceVersion"] = json!("1");
        pod
    };
    let items: Vec<Value> = (1..=3).map(pod).collect();
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items})
}

#[tokio::test]
async fn voters_are_set_only_under_a_budget_that_is_closed_right_now() {
    let (server, context) = serve().await;
    let (cluster, observed) = running();
    server.put(CLUSTER, json!(cluster));
    server.put(PODS, pods(&cluster, true));
    let change = [Action::SetVoters {
        leader: MemberId::new(1, 1),
        voters: [MemberId::new(1, 1), MemberId::new(1, 2)].into(),
        guard: Guard {
            term: 1,
            log_id: Default::default(),
        },
    }];
    let scope = Scope::new(&context, &cluster, &observed);
    for open in [None, Some(budget(&cluster, 2))] {
        if let Some(open) = open {
            server.put(BUDGET, open);
        }
        let refused = apply(&scope, &change).await;
        assert!(
            matches!(
                refused,
                Err(Error::Stale {
                    doing: "budget read again"
                })
            ),
            "{refused:?}"
        );
    }
    server.put(BUDGET, budget(&cluster, 3));
    server.put(PODS, pods(&cluster, false));
    let refused = apply(&scope, &change).await;
    assert!(
        matches!(refused, Err(Error::Stale { .. })),
        "m2 was made again and is not counted: {refused:?}"
    );
    server.put(PODS, pods(&cluster, true));
    let outcome = apply(&scope, &change).await;
    assert!(
        matches!(outcome, Err(Error::NotConnected { .. })),
        "now the leader is asked: {outcome:?}"
    );
}

#[tokio::test]
async fn a_lost_authority_is_made_anew_only_when_no_member_has_a_certificate_of_it() {
    let (server, context) = serve().await;
    let (cluster, observed) = running();
    let certificate = format!("{SECRETS}/demo-1-2-tls");
    let secret = json!({
        "metadata": {"name": "demo-1-2-tls", "uid": "s-1"},
        "data": {"ca.crt": "b2xk"},
    });
    server.put(&certificate, secret.clone());
    let scope = Scope::new(&context, &cluster, &observed);
    let refused = apply(&scope, &[Action::EnsureAuthority]).await.unwrap_err();
    assert!(matches!(refused, Error::AuthorityLost { .. }), "{refused}");
    assert_eq!(refused.reason(), Some(crds::Reason::WaitingForCertificates));
    assert_eq!(server.writes_to("POST"), []);

    server.objects.lock().unwrap().remove(&certificate);
    apply(&scope, &[Action::EnsureAuthority]).await.unwrap();
    assert_eq!(server.writes_to(&format!("POST {SECRETS}")).len(), 1);
}

#[tokio::test]
async fn a_store_that_was_never_initialized_gets_its_authority_anew() {
    let (server, context) = serve().await;
    let (mut cluster, observed) = running();
    let status = cluster.status.as_mut().unwrap();
    status.identity.as_mut().unwrap().initialized = false;
    let secret = json!({"metadata": {"name": "demo-1-2-tls"}, "data": {"ca.crt": "b2xk"}});
    server.put(&format!("{SECRETS}/demo-1-2-tls"), secret);
    let scope = Scope::new(&context, &cluster, &observed);
    apply(&scope, &[Action::EnsureAuthority]).await.unwrap();
    assert_eq!(server.writes_to(&format!("POST {SECRETS}")).len(), 1);
}

#[tokio::test]
async fn a_certificate_is_deleted_by_uid_and_only_when_it_is_ours() {
    let (server, context) = serve().await;
    let (cluster, observed) = running();
    server.put(CLUSTER, json!(cluster));
    let scope = Scope::new(&context, &cluster, &observed);
    let path = format!("{SECRETS}/demo-1-2-tls");
    let action = [Action::DeleteCertificate {
        member: MemberId::new(1, 2),
    }];
    server.put(
        &path,
        json!({"metadata": {"name": "demo-1-2-tls", "uid": "s-1"}}),
    );
    apply(&scope, &action).await.unwrap();
    assert_eq!(server.writes_to("DELETE"), [], "somebody else's stays");

    let labels = json!({"taskstore.dev/cluster": "demo"});
    let ours = json!({"metadata": {"name": "demo-1-2-tls", "uid": "s-2", "labels": labels}});
    server.put(&path, ours);
    apply(&scope, &action).await.unwrap();
    let deletes = server.writes_to("DELETE");
    assert_eq!(deletes.len(), 1);
    assert_eq!(deletes[0].1["preconditions"]["uid"], "s-2");
}

fn image_of_m1(cost: Cost) -> Action {
    Action::SetImage {
        member: MemberId::new(1, 1),
        image: "taskstore:2".into(),
        version: "1".into(),
        replaces: Some("container-1".into()),
        cost,
    }
}

fn one_vote() -> Cost {
    Cost::Vote {
        of: (1..=3).map(|number| MemberId::new(1, number)).collect(),
    }
}

#[tokio::test]
async fn a_member_goes_down_only_while_all_others_are_ready_right_now() {
    let (server, context) = serve().await;
    let (mut cluster, observed) = running();
    cluster.spec.image = Some("taskstore:2".into());
    server.put(CLUSTER, json!(cluster));
    server.put(BUDGET, budget(&cluster, 3));
    let scope = Scope::new(&context, &cluster, &observed);
    let change = [image_of_m1(one_vote())];
    let is_refused = |outcome: Result<(), Error>| matches!(outcome, Err(Error::Stale { .. }));

    let mut list = pods(&cluster, true);
    let conditions = json!([{"type": "Ready", "status": "True"}]);
    for pod in list["items"].as_array_mut().unwrap() {
        pod["status"]["conditions"] = conditions.clone();
    }
    let mut one_unready = list.clone();
    one_unready["items"][1]["status"]["conditions"] = json!([]);
    server.put(PODS, one_unready);
    assert!(is_refused(apply(&scope, &change).await), "m2 is not Ready");

    let mut one_replaced = list.clone();
    let pod = &mut one_replaced["items"][1];
    pod["metadata"]["annotations"]["taskstore.dev/replaced-container"] = json!("container-2");
    let name = pod["spec"]["containers"][0]["name"].clone();
    pod["status"]["containerStatuses"] = json!([{"name": name, "containerID": "container-2", "image": "", "imageID": "",
                "ready": true, "restartCount": 0}]);
    server.put(PODS, one_replaced);
    assert!(
        is_refused(apply(&scope, &change).await),
        "the kubelet has not yet seen the image of m2"
    );

    let mut one_going = list.clone();
    one_going["items"][2]["metadata"]["deletionTimestamp"] = json!("2026-11-25T00:00:00Z");
    server.put(PODS, one_going);
    assert!(
        is_refused(apply(&scope, &change).await),
        "m3 is on its way out"
    );

    server.put(PODS, list);
    server.put(BUDGET, budget(&cluster, 2));
    assert!(
        is_refused(apply(&scope, &change).await),
        "the budget is open"
    );
    assert_eq!(server.writes_to("PATCH"), []);

    server.put(BUDGET, budget(&cluster, 3));
    server.put(&format!("{PODS}/demo-1-1"), json!({"metadata": {}}));
    apply(&scope, &change).await.unwrap();
    let patches = server.writes_to(&format!("PATCH {PODS}/demo-1-1"));
    let metadata = json!({
        "resourceVersion": "1",
        "annotations": {
            "taskstore.dev/image": "taskstore:2",
            "taskstore.dev/replaced-container": "container-1",
        },
    });
    assert_eq!(patches[0].1["metadata"], metadata);
    assert_eq!(
        patches[0].1["spec"],
        json!({"containers": [{"name": "taskstore", "image": "taskstore:2"}]})
    );
}

#[tokio::test]
async fn an_outdated_pod_is_deleted_only_as_it_was_seen_and_for_the_spec_that_stands() {
    let (server, context) = serve().await;
    let (cluster, observed) = running();
    let mut later = json!(cluster);
    later["metadata"]["resourceVersion"] = json!("later");
    server.put(CLUSTER, later);
    server.put(&format!("{PODS}/demo-1-1"), json!({"metadata": {}}));
    let scope = Scope::new(&context, &cluster, &observed);
    let change = [Action::RenewPod {
        member: MemberId::new(1, 1),
        uid: "u".into(),
        version: "7".into(),
        cost: Cost::Nothing,
    }];
    let outcome = apply(&scope, &change).await;
    assert!(matches!(outcome, Err(Error::Stale { .. })), "{outcome:?}");
    assert_eq!(server.writes_to("DELETE"), []);

    server.put(CLUSTER, json!(cluster));
    apply(&scope, &change).await.unwrap();
    let deletes = server.writes_to("DELETE");
    let preconditions = json!({"uid": "u", "resourceVersion": "7"});
    assert_eq!(deletes[0].1["preconditions"], preconditions);
}

#[tokio::test]
async fn a_survivors_volume_is_handed_on_only_when_no_other_pod_of_its_incarnation_is_left() {
    let (server, context) = serve().await;
    let (mut cluster, observed) = running();
    cluster.spec.recovery.accept_unconfirmed = vec![MemberId::new(1, 1), MemberId::new(1, 2)];
    server.put(CLUSTER, json!(cluster));
    let claim = "/api/v1/namespaces/shop/persistentvolumeclaims/demo-1-1";
    server.put(claim, json!({"metadata": {}}));
    let scope = Scope::new(&context, &cluster, &observed);
    let change = [Action::HandVolume {
        from: MemberId::new(1, 1),
        to: MemberId::new(2, 4),
        version: "7".into(),
    }];
    let left = |numbers: &[usize]| {
        let mut list = pods(&cluster, true);
        let all = list["items"].as_array().unwrap().clone();
        list["items"] = numbers
            .iter()
            .map(|number| all[number - 1].clone())
            .collect();
        list
    };
    for numbers in [&[3][..], &[2, 3], &[1]] {
        server.put(PODS, left(numbers));
        let outcome = apply(&scope, &change).await;
        assert!(
            matches!(outcome, Err(Error::Stale { .. })),
            "{numbers:?}: {outcome:?}"
        );
    }
    assert_eq!(server.writes_to("PATCH"), []);

    server.put(PODS, left(&[2]));
    apply(&scope, &change).await.unwrap();
    let patches = server.writes_to(&format!("PATCH {claim}"));
    let metadata = json!({
        "resourceVersion": "7",
        "labels": {
            "taskstore.dev/incarnation": "2",
            "taskstore.dev/member-id": MemberId::new(2, 4).to_string(),
        },
    });
    assert_eq!(patches[0].1["metadata"], metadata);
}

#[tokio::test]
async fn a_pod_is_made_only_by_an_operator_that_has_seen_the_cluster_as_it_is() {
    let (server, context) = serve().await;
    let (cluster, observed) = running();
    let mut later = json!(cluster);
    later["metadata"]["resourceVersion"] = json!("later");
    server.put(CLUSTER, later);
    let scope = Scope::new(&context, &cluster, &observed);
    let create = [Action::CreatePod {
        member: MemberId::new(1, 1),
        volume_uid: "u".into(),
        start: Start::Serve,
        is_voter: true,
    }];
    let outcome = apply(&scope, &create).await;
    let doing = "cluster read again";
    assert!(
        matches!(outcome, Err(Error::Stale { doing: why }) if why == doing),
        "{outcome:?}"
    );
}

const BACKUPS: &str = "/apis/taskstore.dev/v1alpha1/namespaces/shop/taskstorebackups";

fn backup(created: &str) -> crds::TaskStoreBackup {
    serde_json::from_value(json!({
        "apiVersion": "taskstore.dev/v1alpha1", "kind": "TaskStoreBackup",
        "metadata": {
            "name": "one", "namespace": "shop", "uid": "b-1", "resourceVersion": "7",
            "creationTimestamp": created,
        },
        "spec": {"cluster": "gone"},
    }))
    .unwrap()
}

/// Caches with one backup in them.
fn caches(backup: &crds::TaskStoreBackup) -> operator::observe::Caches {
    use kube::runtime::reflector::store;
    use kube::runtime::watcher::Event;
    let (backups, mut writer) = store();
    writer.apply_watcher_event(&Event::Apply(backup.clone()));
    operator::observe::Caches {
        clusters: store().0,
        pods: store().0,
        claims: store().0,
        services: store().0,
        accounts: store().0,
        budgets: store().0,
        backups,
        restores: store().0,
    }
}

#[tokio::test]
async fn a_backup_of_no_cluster_fails_after_a_grace_and_only_once() {
    let (server, context) = serve().await;
    let backup = backup("2026-11-25T12:00:00Z");
    let key = ("shop".to_owned(), "gone".to_owned());
    let give_up = async |backup: &crds::TaskStoreBackup, now: &str| {
        let now = now.parse().unwrap();
        operator::orphans::give_up(&context.client, &caches(backup), &key, now)
            .await
            .unwrap()
    };
    let wait = give_up(&backup, "2026-11-25T12:00:20Z").await;
    assert_eq!(wait, Some(std::time::Duration::from_secs(40)));
    assert_eq!(server.writes_to("PUT"), []);

    assert_eq!(give_up(&backup, "2026-11-25T12:01:00Z").await, None);
    let writes = server.writes_to(&format!("PUT {BACKUPS}/one/status"));
    let [(_, written)] = writes.as_slice() else {
        panic!("{writes:?}");
    };
    assert_eq!(written["metadata"]["resourceVersion"], "7");
    assert_eq!(written["status"]["phase"], "Failed");
    let failed = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(give_up(&failed, "2026-11-25T12:02:00Z").await, None);
    assert_eq!(server.writes_to("PUT").len(), 1);
}

#[tokio::test]
async fn what_is_noted_of_a_backup_is_its_status_at_the_version_that_was_seen() {
    let (server, context) = serve().await;
    let (cluster, observed) = running();
    server.put(CLUSTER, json!(cluster));
    let status = crds::TaskStoreBackupStatus {
        phase: crds::backup::BackupPhase::Completed,
        ..Default::default()
    };
    let scope = Scope::new(&context, &cluster, &observed);
    let actions = [
        Action::CreateBackup {
            name: "demo-i1-202611251200".into(),
        },
        Action::NoteBackup {
            name: "demo-i1-202611251200".into(),
            version: "9".into(),
            status: Box::new(status),
        },
        Action::DeleteBackup {
            name: "old".into(),
            uid: "b-0".into(),
        },
    ];
    apply(&scope, &actions).await.unwrap();
    let created = server.writes_to(&format!("POST {BACKUPS}"));
    assert_eq!(created[0].1["spec"], json!({"cluster": "demo"}));
    assert!(created[0].1["metadata"]["ownerReferences"].is_null());
    let noted = server.writes_to(&format!("PUT {BACKUPS}/demo-i1-202611251200/status"));
    assert_eq!(noted[0].1["metadata"]["resourceVersion"], "9");
    assert_eq!(noted[0].1["status"]["phase"], "Completed");
    let deleted = server.writes_to(&format!("DELETE {BACKUPS}/old"));
    assert_eq!(deleted[0].1["preconditions"]["uid"], "b-0");
}
