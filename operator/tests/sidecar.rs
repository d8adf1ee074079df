//! Members beside containers of the user's, as they are rendered.
//! `UPDATE=1 cargo test -p taskstore-operator --test sidecar` writes the golden pod anew; read the diff.

mod world;

use std::path::Path;

use crds::{MemberId, TaskStoreCluster};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use operator::observe::Start;
use operator::resources;
use serde_json::{Value, json};
use world::sidecar::{cluster, mailer};

fn pod(cluster: &TaskStoreCluster) -> Pod {
    let identity = resources::pod::Identity {
        cluster_id: "c",
        member: MemberId::new(1, 1),
        volume: "demo-1-1",
        volume_uid: "v",
        restore: None,
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
        restore: None,
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
