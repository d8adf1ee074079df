//! The committed CRD is the one that the types give, and keeps the promises of the schema pass.

use serde_json::Value;

use crds::schema::definitions;

const CHART: &str = "../charts/taskstore-crds/templates";

#[test]
fn the_committed_crds_are_what_the_types_give() {
    let chart = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(CHART);
    for definition in definitions() {
        let committed = std::fs::read_to_string(chart.join(definition.file)).unwrap();
        assert!(
            committed == definition.yaml(),
            "{} is out of date: cargo run -p taskstore-crds --bin crdgen",
            definition.file
        );
    }
}

#[test]
fn helm_finds_nothing_to_expand_in_a_crd() {
    for definition in definitions() {
        assert!(!definition.yaml().contains("{{"), "{}", definition.file);
    }
}

#[test]
fn a_client_side_apply_can_remember_each_crd() {
    // kubectl keeps the last applied object in an annotation of at most 256 KiB.
    for definition in definitions() {
        let chars = definition.crd.to_string().len();
        assert!(chars < 256 << 10, "{}", definition.file);
    }
}

/// Calls `check` with the path of every node of the schema.
fn walk(path: &str, node: &Value, check: &mut impl FnMut(&str, &Value)) {
    check(path, node);
    for (key, child) in node["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{key}"), child, check);
    }
    for key in ["items", "additionalProperties"] {
        if node[key].is_object() {
            walk(&format!("{path}[]"), &node[key], check);
        }
    }
}

fn every_node(mut check: impl FnMut(&str, &Value)) {
    let mut nodes = 0;
    for definition in definitions() {
        let schema = &definition.crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        walk("", schema, &mut |path, node| {
            nodes += 1;
            check(path, node);
        });
    }
    assert!(nodes > 100, "only {nodes} nodes were walked");
}

#[test]
fn every_string_list_and_map_is_bounded() {
    every_node(|path, node| {
        let bounded = match node["type"].as_str() {
            Some("string") => ["maxLength", "enum", "format"]
                .iter()
                .any(|key| !node[key].is_null()),
            Some("array") => node["maxItems"].is_u64(),
            Some("object") => {
                node["additionalProperties"].is_null() || node["maxProperties"].is_u64()
            }
            _ => node["x-kubernetes-int-or-string"].is_null() || node["maxLength"].is_u64(),
        };
        assert!(bounded, "{path} has no bound: {node}");
    });
}

#[test]
fn nothing_is_nullable_and_no_bound_is_a_float() {
    every_node(|path, node| {
        assert!(node["nullable"].is_null(), "{path} is nullable");
        for key in ["minimum", "maximum"] {
            assert!(
                node[key].is_null() || node[key].is_i64(),
                "{path} has a float bound"
            );
        }
        let known = [
            Value::Null,
            "int32".into(),
            "int64".into(),
            "date-time".into(),
        ];
        assert!(
            known.contains(&node["format"]),
            "{path} has the format {}",
            node["format"]
        );
    });
}

/// Not `spec` itself: the API server checks a default against the rules before it fills it in, and the
/// rules want fields that are not there yet.
#[test]
fn objects_that_hold_defaults_default_to_an_empty_object() {
    every_node(|path, node| {
        let holds = node["properties"]
            .as_object()
            .is_some_and(|properties| properties.values().any(|child| !child["default"].is_null()));
        // With a field that must be given, it has no default.
        if holds && path.starts_with(".spec.") && node["required"].is_null() {
            assert_eq!(node["default"], serde_json::json!({}), "{path}");
        }
    });
}

/// What is embedded from Kubernetes has its own words.
fn is_own(path: &str) -> bool {
    let embedded = ["affinity.", "tolerations[]", "conditions[]"];
    let is_below = path.starts_with(".spec.") || path.starts_with(".status.");
    is_below && !embedded.iter().any(|part| path.contains(part))
}

#[test]
fn every_field_of_spec_and_status_is_documented() {
    every_node(|path, node| {
        let words = node["description"].as_str().unwrap_or_default();
        assert!(
            !is_own(path) || path.ends_with("[]") || words.len() > 20,
            "{path} is not documented: {words:?}"
        );
    });
}

#[test]
fn every_setting_says_its_default_and_whether_it_may_change() {
    every_node(|path, node| {
        let is_setting = is_own(path) && path.starts_with(".spec.") && !path.contains("[]");
        if is_setting && node["properties"].is_null() {
            let words = node["description"].as_str().unwrap_or_default();
            for either in [["Default", "default"], ["May ", "Never changes"]] {
                assert!(
                    either.iter().any(|word| words.contains(word)),
                    "{path} does not say {either:?}: {words}"
                );
            }
        }
    });
}

#[test]
fn no_quantity_is_negative_as_a_string_or_as_a_number() {
    let mut quantities = 0;
    every_node(|path, node| {
        if !node["x-kubernetes-int-or-string"].is_null() {
            quantities += 1;
            assert_eq!(node["minimum"], 0, "{path}");
            assert!(node["pattern"].is_string(), "{path}");
        }
    });
    assert!(quantities >= 4, "{quantities}");
}
