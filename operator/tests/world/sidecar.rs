//! A cluster with a pod template that uses a bit of everything.

use crds::TaskStoreCluster;
use serde_json::{Value, json};

/// An app with a sidecar of its own and an init container, with a bit of everything.
pub fn mailer() -> Value {
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

pub fn cluster(template: Value) -> TaskStoreCluster {
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
