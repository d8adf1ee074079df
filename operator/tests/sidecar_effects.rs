//! Effects of sidecar mode against an API server that only stores: the dry run of a template, and patches of images.

mod world;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use crds::cluster::VolumePolicy;
use crds::conditions::get;
use crds::{ConditionType, MemberId, TaskStoreCluster};
use kube::runtime::reflector;
use operator::apply::{Scope, apply};
use operator::context::Context;
use operator::error::Error;
use operator::observe::Caches;
use operator::plan::Action;
use operator::plan::action::Cost;
use operator::reconcile::reconcile;
use serde_json::{Value, json};
use world::World;
use world::sidecar::{cluster, mailer};

const CLUSTER: &str = "/apis/taskstore.dev/v1alpha1/namespaces/shop/taskstoreclusters/demo";
const PODS: &str = "/api/v1/namespaces/shop/pods";

#[derive(Clone, Default)]
struct Server {
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Whether it is too old to know sidecars.
    is_old: Arc<Mutex<bool>>,
    /// What it answers to a dry run; none: it is fine.
    refusal: Arc<Mutex<Option<(u16, &'static str)>>>,
    /// Method, path with its query, and body of every request that asks for a change.
    writes: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    fn writes(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.writes.lock().unwrap())
    }
}

async fn answer(
    State(server): State<Server>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> (StatusCode, Json<Value>) {
    let mut sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = uri.path();
    if method != Method::GET {
        let what = format!("{method} {}", uri.path_and_query().unwrap());
        server.writes.lock().unwrap().push((what, sent.clone()));
    }
    if *server.is_old.lock().unwrap()
        && let Some(member) = sent.pointer_mut("/spec/initContainers/0")
    {
        member.as_object_mut().unwrap().remove("restartPolicy");
    }
    let failed = |code: u16, message: &str| {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "reason": "", "code": code, "message": message,
        });
        (StatusCode::from_u16(code).unwrap(), Json(status))
    };
    let is_dry_run = uri.query().is_some_and(|query| query.contains("dryRun"));
    if let Some((code, message)) = *server.refusal.lock().unwrap()
        && is_dry_run
    {
        return failed(code, message);
    }
    let known = server.objects.lock().unwrap().get(path).cloned();
    let empty = json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []});
    match (method, known) {
        (Method::POST | Method::PUT, _) => (StatusCode::OK, Json(sent)),
        (_, Some(known)) => (StatusCode::OK, Json(known)),
        (Method::GET, None) if path.ends_with('s') => (StatusCode::OK, Json(empty)),
        _ => failed(404, "not found"),
    }
}

async fn serve() -> (Server, Arc<Context>) {
    let server = Server::default();
    let router = axum::Router::new()
        .fallback(answer)
        .with_state(server.clone());
    let context = world::server::context(router).await;
    (server, Arc::new(context))
}

fn caches() -> Caches {
    Caches {
        clusters: reflector::store().0,
        pods: reflector::store().0,
        claims: reflector::store().0,
        services: reflector::store().0,
        accounts: reflector::store().0,
        budgets: reflector::store().0,
        backups: reflector::store().0,
        restores: reflector::store().0,
    }
}

/// What one pass writes; the cluster is then as the pass left it.
async fn pass(
    server: &Server,
    context: &Arc<Context>,
    cluster: &mut TaskStoreCluster,
) -> Vec<String> {
    let _ = reconcile(Arc::new(cluster.clone()), context.clone(), caches()).await;
    let writes = server.writes();
    for (what, body) in &writes {
        if what.contains("/status") {
            *cluster = serde_json::from_value(body.clone()).unwrap();
        }
    }
    writes.into_iter().map(|(what, _)| what).collect()
}

#[tokio::test]
async fn a_template_that_the_api_server_refuses_changes_nothing_and_is_reported_in_its_words() {
    let (server, context) = serve().await;
    let mut cluster = cluster(mailer());
    let dry_run = format!("POST {PODS}?&dryRun=All");
    for (code, words) in [
        (
            422,
            r#"Pod "demo-0-0" is invalid: spec.initContainers[1].image: Required value"#,
        ),
        (
            403,
            r#"pods "demo-0-0" is forbidden: violates PodSecurity "restricted:latest""#,
        ),
        (400, "Pod in version \"v1\" cannot be handled as a Pod"),
    ] {
        *server.refusal.lock().unwrap() = Some((code, words));
        let writes = pass(&server, &context, &mut cluster).await;
        assert_eq!(writes, [dry_run.clone(), format!("PUT {CLUSTER}/status?")]);
        let conditions = cluster.status.clone().unwrap().conditions;
        let known = get(&conditions, ConditionType::Progressing).unwrap();
        assert_eq!(
            (known.status.as_str(), known.reason.as_str()),
            ("False", "InvalidSpec")
        );
        assert_eq!(known.message, format!("spec.template: {words}"));
        let writes = pass(&server, &context, &mut cluster).await;
        assert_eq!(
            writes,
            std::slice::from_ref(&dry_run),
            "what it waits for is not watched"
        );
    }
    // A quota that its own pods fill says nothing about the template.
    let words = r#"pods "demo-0-0" is forbidden: exceeded quota: pods"#;
    *server.refusal.lock().unwrap() = Some((403, words));
    let writes = pass(&server, &context, &mut cluster).await;
    assert_eq!(writes, [dry_run, format!("PUT {CLUSTER}/status?")]);
    let status = cluster.status.clone().unwrap();
    assert!(status.identity.is_some(), "it goes on: {status:?}");
}

#[tokio::test]
async fn a_kubernetes_without_sidecars_is_told_from_the_pod_that_it_would_make() {
    let (server, context) = serve().await;
    let mut cluster = cluster(mailer());
    *server.is_old.lock().unwrap() = true;
    pass(&server, &context, &mut cluster).await;
    let conditions = cluster.status.clone().unwrap().conditions;
    let known = get(&conditions, ConditionType::Progressing).unwrap();
    assert_eq!(known.reason, "InvalidSpec");
    assert!(known.message.contains("1.29"), "{}", known.message);
}

#[tokio::test]
async fn a_template_is_proven_once_for_each_generation_by_a_pod_of_it() {
    let (server, context) = serve().await;
    let mut cluster = cluster(mailer());
    let dry_runs = |writes: &[String]| writes.iter().filter(|what| what.contains("dryRun")).count();
    let _ = reconcile(Arc::new(cluster.clone()), context.clone(), caches()).await;
    let writes = server.writes.lock().unwrap().clone();
    let sent = &writes[0].1;
    assert_eq!(sent["spec"]["containers"][0]["image"], "mailer:1");
    assert_eq!(sent["spec"]["initContainers"][0]["name"], "taskstore");
    assert_eq!(
        sent["spec"]["serviceAccountName"],
        Value::Null,
        "ours may not be there yet"
    );
    assert_eq!(dry_runs(&pass(&server, &context, &mut cluster).await), 1);
    assert_eq!(dry_runs(&pass(&server, &context, &mut cluster).await), 0);
    // Another process reads from status what was taken up.
    let (_, later) = serve().await;
    assert_eq!(dry_runs(&pass(&server, &later, &mut cluster).await), 0);
    cluster.metadata.generation = Some(2);
    assert_eq!(dry_runs(&pass(&server, &context, &mut cluster).await), 1);
    assert_eq!(dry_runs(&pass(&server, &context, &mut cluster).await), 0);
    cluster.metadata.generation = Some(3);
    cluster.spec.paused = true;
    assert_eq!(dry_runs(&pass(&server, &context, &mut cluster).await), 0);
}

#[tokio::test]
async fn images_are_patched_where_their_containers_are_and_only_for_the_spec_that_stands() {
    let (server, context) = serve().await;
    let mut world = World::new();
    world.create(3, VolumePolicy::Retain, VolumePolicy::Retain);
    let template = serde_json::from_value(mailer()).unwrap();
    world.edit(|cluster| cluster.spec.template = Some(template));
    world.run();
    let (mut cluster, observed) = world.look().unwrap();
    cluster.spec.image = Some("taskstore:2".into());
    let path = format!("{PODS}/demo-1-1");
    let put =
        |path: &str, object: Value| _ = server.objects.lock().unwrap().insert(path.into(), object);
    put(&path, json!({"metadata": {}}));
    let mut later = json!(cluster);
    later["metadata"]["resourceVersion"] = json!("later");
    put(CLUSTER, later);
    let app = Action::SetAppImages {
        member: MemberId::new(1, 1),
        images: [("app", "mailer:1"), ("logs", "logs:1")]
            .map(|(name, image)| (name.to_owned(), image.to_owned()))
            .into(),
        version: "7".into(),
        replaces: vec!["c1".into(), "c2".into()],
    };
    let member = Action::SetImage {
        member: MemberId::new(1, 1),
        image: "taskstore:2".into(),
        version: "7".into(),
        replaces: None,
        cost: Cost::Nothing,
    };
    let scope = Scope::new(&context, &cluster, &observed);
    let refused = apply(&scope, std::slice::from_ref(&app)).await;
    assert!(matches!(refused, Err(Error::Stale { .. })), "{refused:?}");
    assert_eq!(server.writes(), []);

    put(CLUSTER, json!(cluster));
    apply(&scope, &[app, member]).await.unwrap();
    let patches: Vec<Value> = server
        .writes()
        .into_iter()
        .filter(|(what, _)| what.starts_with(&format!("PATCH {path}")))
        .map(|(_, body)| body)
        .collect();
    assert_eq!(
        patches[0],
        json!({
            "metadata": {"resourceVersion": "7", "annotations": {
                "taskstore.dev/app-images": r#"{"app":"mailer:1","logs":"logs:1"}"#,
                "taskstore.dev/replaced-app-containers": "c1,c2",
            }},
            "spec": {
                "initContainers": [{"name": "logs", "image": "logs:1"}],
                "containers": [{"name": "app", "image": "mailer:1"}],
            },
        })
    );
    assert_eq!(
        patches[1]["spec"],
        json!({"initContainers": [{"name": "taskstore", "image": "taskstore:2"}]})
    );
}
