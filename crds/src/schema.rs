//! The CRDs that the API server gets: what schemars derives, made fit for Kubernetes, with our rules.
//!
//! The derived schema is right about shapes; this pass makes it keep the promises that no attribute can:
//! every string, list and map is bounded, nothing is `nullable`, bounds are whole numbers, objects that
//! hold defaults default to `{}`, and keys have one order whatever features serde_json was built with.

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::backup::TaskStoreBackup;
use crate::cluster::TaskStoreCluster;
use crate::conditions::MESSAGE_CHARS_MAX;
use crate::restore::TaskStoreRestore;
use crate::validate::{RULES, Scope};

/// Bounds for what is embedded from Kubernetes' own types, which carry none.
const STRING_CHARS_MAX: u64 = 1024;
const LIST_ITEMS_MAX: u64 = 256;
const MAP_ENTRIES_MAX: u64 = 64;

/// A quantity that is not negative, as a string. A number meets no pattern and has a minimum instead.
const QUANTITY_PATTERN: &str =
    r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$";

/// What never changes in a spec that may not.
const IMMUTABLE: &str = "self == oldSelf";

/// A CRD as the API server gets it, and the file of the chart that holds it.
pub struct Definition {
    pub file: &'static str,
    pub crd: Value,
}

impl Definition {
    /// The YAML that the chart commits.
    pub fn yaml(&self) -> String {
        let yaml = serde_norway::to_string(&self.crd).expect("JSON is YAML");
        format!(
            "# Generated: cargo run -p taskstore-crds --bin crdgen. A test compares it with the types.\n{yaml}"
        )
    }
}

/// Every kind of ours.
pub fn definitions() -> [Definition; 3] {
    let define = |file, crd| Definition { file, crd };
    [
        define("taskstoreclusters.yaml", cluster_crd()),
        define("taskstorebackups.yaml", backup_crd()),
        define("taskstorerestores.yaml", restore_crd()),
    ]
}

/// The CustomResourceDefinition of TaskStoreCluster.
pub fn cluster_crd() -> Value {
    let mut crd = fitted::<TaskStoreCluster>();
    let schema = schema_of(&mut crd);
    schema["x-kubernetes-validations"] = rules(Scope::Object);
    schema["properties"]["spec"]["x-kubernetes-validations"] = rules(Scope::Spec);
    schema["properties"]["spec"]["properties"]["image"]["pattern"] = json!(r"^\S+$");
    sorted(crd)
}

fn backup_crd() -> Value {
    let mut crd = fitted::<TaskStoreBackup>();
    schema_of(&mut crd)["properties"]["spec"]["x-kubernetes-validations"] = json!([
        {"rule": IMMUTABLE, "message": "a backup is ordered once: make another TaskStoreBackup"},
    ]);
    sorted(crd)
}

fn restore_crd() -> Value {
    let mut crd = fitted::<TaskStoreRestore>();
    schema_of(&mut crd)["properties"]["spec"]["x-kubernetes-validations"] = json!([
        {"rule": IMMUTABLE, "message": "a restore is ordered once: make another TaskStoreRestore"},
        {
            "rule": "has(self.source.backup) != has(self.source.bucket)",
            "message": "source must have exactly one of backup and bucket",
        },
        {
            "rule": "!has(self.upto) || !has(self.upto.index) || !has(self.upto.time)",
            "message": "upto must have at most one of index and time",
        },
    ]);
    sorted(crd)
}

fn fitted<K: CustomResourceExt>() -> Value {
    let mut crd = serde_json::to_value(K::crd()).expect("a CRD is plain JSON");
    fit(schema_of(&mut crd));
    crd
}

fn schema_of(crd: &mut Value) -> &mut Value {
    &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

fn rules(scope: Scope) -> Value {
    RULES
        .iter()
        .filter(|rule| rule.scope == scope)
        .map(|rule| {
            let mut entry = json!({"rule": rule.cel, "message": rule.message});
            // The object's schema does not list metadata.name, so a path to it would be refused.
            if let Some(path) = rule
                .field
                .strip_prefix("spec")
                .filter(|_| scope == Scope::Spec)
            {
                entry["fieldPath"] = json!(path);
            }
            entry
        })
        .collect()
}

/// Makes one schema and everything below it fit; parents first, so that a child sees its own keys only.
fn fit(schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else {
        return;
    };
    node.remove("nullable");
    whole_numbers(node);
    bound(node);
    default_of_object(node);
    if let Some(properties) = node.get_mut("properties").and_then(Value::as_object_mut) {
        for (key, child) in properties {
            if key == "message" && child.get("maxLength").is_none() {
                child["maxLength"] = json!(MESSAGE_CHARS_MAX);
            }
            fit(child);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = node.get_mut(key) {
            fit(child);
        }
    }
}

/// Formats that Kubernetes knows, and bounds without a decimal point: `minimum: 1.0` comes back as `1`
/// from the API server, and GitOps tools then see a difference for ever.
fn whole_numbers(node: &mut Map<String, Value>) {
    let format = match node.get("format").and_then(Value::as_str) {
        Some("uint8" | "uint16") => Some("int32"),
        Some("uint32" | "uint64") => Some("int64"),
        _ => None,
    };
    if let Some(format) = format {
        node.insert("format".into(), json!(format));
    }
    for key in ["minimum", "maximum"] {
        if let Some(bound) = node.get(key).and_then(Value::as_f64) {
            node.insert(key.into(), json!(bound as i64));
        }
    }
}

fn bound(node: &mut Map<String, Value>) {
    if node.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        node.remove("type");
        node.insert("pattern".into(), json!(QUANTITY_PATTERN));
        node.insert("minimum".into(), json!(0));
        node.insert("maxLength".into(), json!(64));
        node.insert(
            "anyOf".into(),
            json!([{"type": "integer"}, {"type": "string"}]),
        );
        if node
            .get("description")
            .and_then(Value::as_str)
            .is_none_or(|text| text.starts_with("Quantity is"))
        {
            node.insert(
                "description".into(),
                json!("A quantity, like 500m, 2 or 10Gi."),
            );
        }
        return;
    }
    let (key, most) = match node.get("type").and_then(Value::as_str) {
        Some("string") if !node.contains_key("enum") && !node.contains_key("format") => {
            ("maxLength", STRING_CHARS_MAX)
        }
        Some("array") => ("maxItems", LIST_ITEMS_MAX),
        Some("object") if node.contains_key("additionalProperties") => {
            ("maxProperties", MAP_ENTRIES_MAX)
        }
        _ => return,
    };
    node.entry(key).or_insert(json!(most));
}

/// `{}` lets the API server fill each field's own default, also where the user gives some of them.
fn default_of_object(node: &mut Map<String, Value>) {
    match node.get("default") {
        Some(Value::Null) => _ = node.remove("default"),
        Some(Value::Object(_)) if node.contains_key("properties") => {
            node.insert("default".into(), json!({}));
        }
        _ => {}
    }
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}
