//! What a template may hold, and what it may not.

use super::*;
use serde_json::json;

/// A cluster whose template is a plain app, changed at one place of its JSON.
fn refusals(pointer: &str, value: Value) -> Vec<Violation> {
    let mut cluster = json!({
        "apiVersion": "taskstore.dev/v1alpha1", "kind": "TaskStoreCluster",
        "metadata": {"name": "demo"},
        "spec": {"template": {"metadata": {}, "spec": {
            "initContainers": [{"name": "wait", "image": "app:1"}],
            "containers": [{"name": "app", "image": "app:1"}],
            "volumes": [{"name": "cache", "emptyDir": {}}],
        }}},
    });
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = cluster.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        parent => parent[key] = value,
    }
    violations(&serde_json::from_value(cluster).unwrap())
}

#[test]
fn what_would_harm_the_member_is_refused_by_its_path() {
    const POD: &str = "/spec/template/spec";
    #[rustfmt::skip]
    let table = [
        ("hostNetwork", json!(true), "hostNetwork", "for itself"),
        ("hostPID", json!(true), "hostPID", "whole node"),
        ("shareProcessNamespace", json!(true), "shareProcessNamespace", "keys"),
        ("nodeName", json!("n1"), "nodeName", "scheduler"),
        ("activeDeadlineSeconds", json!(60), "activeDeadlineSeconds", "end the member"),
        ("restartPolicy", json!("Never"), "restartPolicy", "must be Always"),
        ("dnsPolicy", json!("None"), "dnsPolicy", "must be ClusterFirst"),
        ("hostname", json!("me"), "hostname", "find each other"),
        ("subdomain", json!("us"), "subdomain", "find each other"),
        ("setHostnameAsFQDN", json!(true), "setHostnameAsFQDN", "longer"),
        ("serviceAccount", json!("me"), "serviceAccount", "serviceAccountName"),
        ("containers", json!([]), "containers", "at least one"),
        ("containers", json!("app"), "containers", "invalid type: string"),
        ("containers/0/name", json!("taskstore"), "containers[0].name", "own container"),
        ("initContainers/0/name", json!("taskstore"), "initContainers[0].name", "own container"),
        ("containers/0/ports", json!([{"containerPort": 80}, {"containerPort": 7403}]),
            "containers[0].ports[1].containerPort", "7400 to 7403"),
        ("initContainers/0/restartPolicy", json!("OnFailure"), "initContainers[0].restartPolicy", "must be Always"),
        ("containers/0/restartPolicy", json!("Never"), "containers[0].restartPolicy", "must be Always"),
        ("containers/0/volumeMounts", json!([{"name": "tls", "mountPath": "/keys"}]),
            "containers[0].volumeMounts[0].name", "is the member's"),
        ("containers/0/volumeDevices", json!([{"name": "data", "devicePath": "/dev/x"}]),
            "containers[0].volumeDevices[0].name", "is the member's"),
        ("volumes/0/name", json!("data"), "volumes[0].name", "the member's own"),
        ("volumes/0/name", json!("tls"), "volumes[0].name", "the member's own"),
        ("volumes/0/name", json!("taskstore-ca"), "volumes[0].name", "the member's own"),
        ("containers/0/imagee", json!("app:1"), "containers[0].imagee", "would be lost"),
        ("containers/0/livenessProbe", json!({"httpGet": {"port": 80, "paht": "/"}}),
            "containers[0].livenessProbe.httpGet.paht", "would be lost"),
        ("containers/0/restartPolicyRules", json!([{"action": "Restart"}]),
            "containers[0].restartPolicyRules", "would be lost"),
        ("containers/0/env", json!([{"name": "A", "value": 1}]), "containers[0].env[0].value", "invalid type"),
    ];
    for (pointer, value, field, words) in table {
        let found = refusals(&format!("{POD}/{pointer}"), value);
        assert_eq!(found.len(), 1, "{pointer}: {found:?}");
        assert_eq!(found[0].field, format!("spec.template.spec.{field}"));
        assert!(found[0].message.starts_with(found[0].field.as_ref()));
        assert!(found[0].message.contains(words), "{}", found[0].message);
    }
    for (kind, key) in [
        ("labels", "taskstore.dev/voter"),
        ("labels", "app.kubernetes.io/component"),
        ("annotations", "taskstore.dev/image"),
    ] {
        let path = format!("/spec/template/metadata/{kind}");
        let found = refusals(&path, json!({key: "x"}));
        assert_eq!(found.len(), 1, "{found:?}");
        let field = format!("spec.template.metadata.{kind}[{key}]");
        assert_eq!(found[0].field, field);
    }
}

#[test]
fn what_there_can_be_only_one_of_is_set_in_one_place() {
    let template = json!({"spec": {
        "containers": [{"name": "app", "image": "app:1"}],
        "affinity": {}, "priorityClassName": "high", "nodeSelector": {"disk": "fast", "zone": "a"},
    }});
    let spec = |scheduling: Value| json!({"template": template, "scheduling": scheduling});
    let both = json!({
        "affinity": {}, "priorityClassName": "low", "nodeSelector": {"disk": "slow", "zone": "a"},
    });
    let found = refusals("/spec", spec(both));
    let fields: Vec<&str> = found.iter().map(|found| found.field.as_ref()).collect();
    assert_eq!(
        fields,
        [
            "spec.template.spec.affinity",
            "spec.template.spec.priorityClassName",
            "spec.template.spec.nodeSelector[disk]"
        ]
    );
    assert_eq!(refusals("/spec", spec(json!({}))), []);
}

#[test]
fn what_an_app_needs_is_taken() {
    let table = [
        ("metadata/labels", json!({"team": "blue"})),
        (
            "metadata/annotations",
            json!({"prometheus.io/scrape": "true"}),
        ),
        ("spec/serviceAccountName", json!("mailer")),
        ("spec/automountServiceAccountToken", json!(true)),
        ("spec/terminationGracePeriodSeconds", json!(60)),
        (
            "spec/securityContext",
            json!({"runAsUser": 1000, "fsGroup": 2000}),
        ),
        ("spec/hostNetwork", json!(false)),
        ("spec/hostname", Value::Null),
        (
            "spec/readinessGates",
            json!([{"conditionType": "example.com/in"}]),
        ),
        ("spec/initContainers/0/restartPolicy", json!("Always")),
        (
            "spec/containers/0/ports",
            json!([{"containerPort": 8080, "name": "http"}]),
        ),
        (
            "spec/containers/0/resources",
            json!({"requests": {"cpu": 1}}),
        ),
        (
            "spec/containers/0/volumeMounts",
            json!([{"name": "cache", "mountPath": "/c"}]),
        ),
    ];
    for (pointer, value) in table {
        let found = refusals(&format!("/spec/template/{pointer}"), value);
        assert_eq!(found, [], "{pointer}");
    }
}
