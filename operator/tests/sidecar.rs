//! Members beside containers of the user's: what is rendered, proven and patched.
//! `UPDATE=1 cargo test -p taskstore-operator --test sidecar` writes the golden pod anew; read the diff.

mod world;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use crds::cluster::VolumePolicy;
use crds::conditions::get;
use crds::{ConditionType, MemberId, TaskStoreCluster};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::runtime::reflector;
use operator::apply::{Scope, apply};
use operator::clients::members::Members;
use operator::context::Context;
use operator::error::Error;
use operator::events::Events;
use operator::leadership::Role;
use operator::metrics::Metrics;
use operator::observe::{Caches, Start};
use operator::plan::Action;
use operator::plan::action::Cost;
use operator::reconcile::reconcile;
use operator::resources;
use serde_json::{Value, json};
use world::World;

const CLUSTER: &str = "/apis/taskstore.dev/v1alpha1/namespaces/shop/taskstoreclusters/demo";
const PODS: &str = "/api/v1/namespaces/shop/pods";

/// An app with a sidecar of its own and an init container, with a bit of everything.
fn mailer() -> Value {
    json!({
        "metadata": {"labels": {"team": "mail"}, "annotations": {"prometheus.io/scrape": "true"}},
        "spec": {
            "initContainers": [
                {"name": "migrate", "image": "mailer:1", "args": ["migrate"]},
                {"name": "logs", "image": "logs:1", "restartPolicy": "Always"},
            ],
            "containers": [{
                "name": "app", "image": "mailer:1",
                "env": [
                    {"name": "STORE", "value": "https://$(TASKSTORE_ADDRESS)"},
                    {"name": "TASKSTORE_CA_FILE", "value": "/mine/ca.crt"},
                ],
                "ports": [{"containerPort": 9090}],
                "volumeMounts": [{"name": "mine", "mountPath": "/mine"}],
            }],
            "volumes": [{"name": "mine", "configMap": {"name": "mine"}}],
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "mail", "operator": "Exists"}],
            "imagePullSecrets": [{"name": "theirs"}],
            "securityContext": {"runAsUser": 1000, "runAsNonRoot": false},
            "terminationGracePeriodSeconds": 60,
        },
    })
}

fn cluster(template: Value) -> TaskStoreCluster {
    let cluster = json!({
        "apiVersion": "taskstore.dev/v1alpha1", "kind": "TaskStoreCluster",
        "metadata": {
            "name": "demo", "namespace": "shop", "uid": "uid", "generation": 1, "resourceVersion": "1",
        },
        "spec": {
            "template": template,
            "imagePullSecrets": [{"name": "ours"}],
            "scheduling": {"nodeSelector": {"zone": "a"}},
        },
    });
    let cluster: TaskStoreCluster = serde_json::from_value(cluster).unwrap();
    assert_eq!(crds::validate(&cluster, None), []);
    cluster
}

fn pod(cluster: &TaskStoreCluster) -> Pod {
    let identity = resources::pod::Identity {
        cluster_id: "c",
        member: MemberId::new(1, 1),
        volume: "demo-1-1",
        volume_uid: "v",
    };
    resources::pod::build(cluster, &identity, "taskstore:1", Start::Serve, true)
}

fn spec(template: Value) -> PodSpec {
    pod(&cluster(template)).spec.unwrap()
}

fn hash(template: &Value) -> String {
    let revision = resources::pod::RENDERER_REVISION;
    resources::pod::template_hash(&cluster(template.clone()), revision).unwrap()
}

#[test]
fn a_pod_beside_an_app_is_rendered_as_written_down() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sidecar_pod.json");
    let rendered = json!(pod(&cluster(mailer())));
    if std::env::var_os("UPDATE").is_some() {
        let text = serde_json::to_string_pretty(&rendered).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    }
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(rendered, written);
}

/// Whatever the app's pod says, the member is as it is alone.
#[test]
fn a_member_beside_an_app_is_the_member_alone() {
    let mut alone = cluster(mailer());
    alone.spec.template = None;
    let alone = pod(&alone).spec.unwrap();
    let beside = spec(mailer());
    let member = resources::pod::member_container(&beside).unwrap();
    assert_eq!(
        beside.init_containers.as_ref().unwrap().first(),
        Some(member)
    );
    assert_eq!(member.restart_policy.as_deref(), Some("Always"));
    let mut same = member.clone();
    let security = same.security_context.as_mut().unwrap();
    let pod = alone.security_context.as_ref().unwrap();
    assert_eq!(security.run_as_user.take(), pod.run_as_user);
    assert_eq!(security.run_as_group.take(), pod.run_as_group);
    assert_eq!(security.seccomp_profile.take(), pod.seccomp_profile);
    assert_eq!(security.run_as_non_root, Some(true));
    same.restart_policy = None;
    assert_eq!(same, alone.containers[0]);
    let volumes = |spec: &PodSpec| spec.volumes.clone().unwrap();
    assert_eq!(volumes(&beside)[..2], volumes(&alone)[..2]);
    assert_eq!(beside.hostname, alone.hostname);
    assert_eq!(beside.subdomain, alone.subdomain);
}

/// It runs where the app's pods may run, and ends without waiting for one.
#[test]
fn a_member_that_serves_nobody_has_no_app_beside_it() {
    let cluster = cluster(mailer());
    let identity = resources::pod::Identity {
        cluster_id: "c",
        member: MemberId::new(1, 1),
        volume: "demo-1-1",
        volume_uid: "v",
    };
    let pod = resources::pod::build(&cluster, &identity, "taskstore:1", Start::Inspect, true);
    let spec = pod.spec.unwrap();
    assert_eq!(spec.init_containers, None);
    let names: Vec<&str> = spec
        .containers
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["taskstore"]);
    assert_eq!(spec.containers[0].restart_policy, None);
    assert_eq!(spec.termination_grace_period_seconds, Some(30));
    let beside = self::pod(&cluster).spec.unwrap();
    assert_eq!(spec.tolerations, beside.tolerations);
    assert_eq!(spec.node_selector, beside.node_selector);
}

fn apps(spec: &PodSpec) -> Vec<&Container> {
    let init = spec.init_containers.iter().flatten().skip(1);
    init.chain(&spec.containers).collect()
}

#[test]
fn an_app_gets_the_address_and_the_ca_and_none_of_the_members_volumes() {
    let spec = spec(mailer());
    let named = |container: &Container| -> Vec<String> {
        let variables = container.env.iter().flatten();
        variables
            .map(|one| format!("{}={}", one.name, one.value.as_deref().unwrap_or_default()))
            .collect()
    };
    let ca = "TASKSTORE_CA_FILE=/var/run/taskstore/ca.crt";
    let own = [
        "TASKSTORE_ADDRESS=localhost:7400",
        "TASKSTORE_ENDPOINTS=localhost:7400",
        ca,
    ];
    assert_eq!(apps(&spec).len(), 3);
    for container in apps(&spec) {
        let mounts = container.volume_mounts.iter().flatten();
        let mounts: Vec<&str> = mounts.map(|mount| mount.name.as_str()).collect();
        if container.name == "app" {
            // What it has set itself stays, and may refer to ours.
            assert_eq!(named(container)[..2], own[..2]);
            assert_eq!(named(container)[3], "TASKSTORE_CA_FILE=/mine/ca.crt");
            assert_eq!(mounts, ["mine"]);
        } else {
            assert_eq!(named(container), own);
            assert_eq!(mounts, ["taskstore-ca"]);
        }
    }
    let mut theirs = cluster(mailer());
    theirs.spec.tls.secret_name = Some("web".into());
    let theirs = pod(&theirs).spec.unwrap();
    let volumes = theirs.volumes.iter().flatten();
    let volumes: Vec<&str> = volumes.map(|volume| volume.name.as_str()).collect();
    assert_eq!(
        volumes,
        ["data", "tls", "mine"],
        "the CA of its Secret is the user's"
    );
    assert!(!named(apps(&theirs)[0]).contains(&ca.to_owned()));
}

#[test]
fn an_app_has_an_account_of_its_own_when_it_names_one() {
    let account = |template: Value| {
        let spec = spec(template);
        (
            spec.service_account_name.unwrap(),
            spec.automount_service_account_token,
        )
    };
    assert_eq!(account(mailer()), ("demo-members".into(), Some(false)));
    let mut named = mailer();
    named["spec"]["serviceAccountName"] = json!("mailer");
    assert_eq!(account(named.clone()), ("mailer".into(), None));
    named["spec"]["automountServiceAccountToken"] = json!(false);
    assert_eq!(account(named), ("mailer".into(), Some(false)));
}

#[test]
fn the_hash_moves_with_everything_of_a_template_but_images_that_change_in_place() {
    let before = hash(&mailer());
    let changed = |pointer: &str, value: Value| {
        let mut template = mailer();
        *template.pointer_mut(pointer).expect(pointer) = value;
        hash(&template)
    };
    for (pointer, value) in [
        ("/metadata/labels/team", json!("post")),
        (
            "/metadata/annotations/prometheus.io~1scrape",
            json!("false"),
        ),
        ("/spec/containers/0/env/0/value", json!("x")),
        ("/spec/terminationGracePeriodSeconds", json!(61)),
        ("/spec/nodeSelector/disk", json!("slow")),
        // It has run already: another image of it takes another pod.
        ("/spec/initContainers/0/image", json!("mailer:2")),
    ] {
        assert_ne!(changed(pointer, value), before, "{pointer}");
    }
    for (pointer, value) in [
        ("/spec/containers/0/image", json!("mailer:2")),
        ("/spec/initContainers/1/image", json!("logs:2")),
    ] {
        assert_eq!(changed(pointer, value), before, "{pointer}");
    }
    let images = pod(&cluster(mailer())).metadata.annotations.unwrap();
    assert_eq!(
        images["taskstore.dev/app-images"],
        r#"{"app":"mailer:1","logs":"logs:1"}"#
    );
}

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
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = Server::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new()
        .fallback(answer)
        .with_state(server.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    let client = kube::Client::try_from(config).unwrap();
    let (wake, _) = tokio::sync::mpsc::channel(1);
    let (_, role) = tokio::sync::watch::channel(Role::Leading);
    let context = Context::new(
        client.clone(),
        Members::new(wake),
        Metrics::default(),
        Events::new(client, "test".into()),
        role,
        "taskstore:1".into(),
    );
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
