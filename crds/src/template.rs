//! The user's pod around each member: what sidecar mode is asked for with.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The pod that each member runs in, beside containers of the user's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations of the pods.
    #[serde(default, skip_serializing_if = "TemplateMetadata::is_empty")]
    pub metadata: TemplateMetadata,

    /// The pod's own spec, every field as in Kubernetes. No default: it must hold at least one container.
    /// May change: running members' pods are made again one at a time, the leader last; where only images
    /// of containers differ, those containers alone restart. The account that `serviceAccountName` names takes the
    /// place of ours, with its token as you say. Not to be set, because they are the member's: what is
    /// named `taskstore`, `taskstore-ca`, `taskstore-backup`, `data` or `tls`, the ports 7400 to 7403, hostNetwork, hostPID, nodeName,
    /// shareProcessNamespace, activeDeadlineSeconds, dnsPolicy, hostname, subdomain and another restartPolicy
    /// than Always.
    #[schemars(schema_with = "open_object")]
    pub spec: Map<String, Value>,
}

/// Labels and annotations of the pods, besides the member's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMetadata {
    /// At most 64, none of them under `taskstore.dev/` or one that our Services select by. Default none.
    /// May change: running members' pods are made again one at a time, the leader last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,

    /// At most 64 of at most 1024 characters, none of them under `taskstore.dev/`. Default none.
    /// May change: running members' pods are made again one at a time, the leader last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// Why a template is not the spec of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The field, as a path below `spec.template.spec`.
    pub path: String,
    pub why: String,
}

impl TemplateMetadata {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl PodTemplate {
    /// The spec as Kubernetes' own type.
    pub fn pod_spec(&self) -> Result<PodSpec, Unreadable> {
        serde_path_to_error::deserialize(Value::Object(self.spec.clone())).map_err(|error| {
            Unreadable {
                path: error.path().to_string(),
                why: error.into_inner().to_string(),
            }
        })
    }
}

/// The API server keeps what it does not know; we refuse it in our own words.
pub(crate) fn open_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true
    })
}
