//! What is accepted and what is refused: the table of `validate::cases` against the pure function, in
//! process, and the examples.

use crds::validate::cases::{Case, Verdict, cases};
use crds::{TaskStoreCluster, Violation, validate};
use serde_json::Value;

fn parse(object: &Value) -> Result<TaskStoreCluster, serde_json::Error> {
    serde_json::from_value(object.clone())
}

fn violations(case: &Case) -> Vec<Violation> {
    let new = parse(&case.new).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let old = case.old.as_ref().map(|old| parse(old).unwrap());
    validate(&new, old.as_ref())
}

#[test]
fn the_pure_rules_agree_with_the_table() {
    for case in cases() {
        match case.verdict {
            Verdict::Accepted => assert_eq!(violations(&case), [], "{}", case.name),
            Verdict::Refused { field, message } => {
                let violations = violations(&case);
                assert!(
                    violations
                        .iter()
                        .any(|v| v.field == field && v.message.contains(message)),
                    "{}: {violations:?}",
                    case.name
                );
            }
            // The schema's own words are the API server's affair; types that cannot hold it refuse it here.
            Verdict::OutOfSchema { .. } => {}
        }
    }
}

#[test]
fn every_rule_is_broken_by_some_case_and_names_are_unique() {
    let all = cases();
    let broken: Vec<Violation> = all
        .iter()
        .filter(|case| matches!(case.verdict, Verdict::Refused { .. }))
        .flat_map(violations)
        .collect();
    for rule in crds::validate::RULES {
        assert!(
            broken.iter().any(|v| v.message == rule.message),
            "no case breaks: {}",
            rule.message
        );
    }
    let names: std::collections::BTreeSet<_> = all.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), all.len());
}

#[test]
fn the_bounds_in_cel_are_the_constants() {
    let text: String = crds::validate::RULES.iter().map(|rule| rule.cel).collect();
    assert!(text.contains(&format!("<= {}", crds::names::CLUSTER_NAME_CHARS_MAX)));
    assert!(text.contains(&format!(
        "'{}Mi'",
        crds::validate::LOG_BUDGET_BYTES_MIN >> 20
    )));
    let (soonest, latest) = (
        crds::validate::REPLACEMENT_AFTER_SECONDS_MIN,
        crds::validate::REPLACEMENT_AFTER_SECONDS_MAX / 3600,
    );
    assert!(text.contains(&format!(">= duration('{soonest}s')")));
    assert!(text.contains(&format!("<= duration('{latest}h')")));
    assert!(text.contains(&format!("matches('{}')", crds::duration::PATTERN)));
    let slowest = crds::validate::BACKUP_BYTES_PER_SECOND_MIN >> 10;
    assert!(text.contains(&format!("quantity('{slowest}Ki')")));
    let (count, days) = (
        crds::validate::BACKUPS_KEPT_MAX,
        crds::validate::BACKUP_DAYS_MAX,
    );
    assert!(text.contains(&format!("keep.count <= {count}")));
    assert!(text.contains(&format!("keep.days <= {days}")));
    for pattern in [crds::schedule::PATTERN, crds::schedule::ZONE_PATTERN] {
        assert!(text.contains(&format!("matches('{pattern}')")));
    }
    let most = crds::validate::REPLACEMENTS_PER_HOUR_MAX;
    assert!(text.contains(&format!("maxPerHour <= {most}")));
}

#[test]
fn what_a_user_leaves_out_is_what_the_documentation_says() {
    let cluster = parse(&cases()[0].new).unwrap();
    assert_eq!(cluster.spec, crds::TaskStoreClusterSpec::default());
    assert_eq!(cluster.spec.replicas, 3);
    assert_eq!(cluster.spec.storage.size.0, "10Gi");
    assert_eq!(cluster.spec.replacement.after, "5m");
    assert_eq!(cluster.spec.replacement.max_per_hour, 1);
}

#[test]
fn a_schedule_of_the_right_shape_is_refused_by_what_it_means() {
    let refused = |backup: Value| {
        let spec = serde_json::json!({"backup": backup});
        let cluster = serde_json::json!({
            "apiVersion": "taskstore.dev/v1alpha1", "kind": "TaskStoreCluster",
            "metadata": {"name": "case"}, "spec": spec,
        });
        let fields = validate(&parse(&cluster).unwrap(), None);
        fields
            .into_iter()
            .map(|violation| violation.field.into_owned())
            .collect::<Vec<_>>()
    };
    let destination = serde_json::json!({"url": "s3://bucket"});
    let backup = |schedule: &str, zone: &str| serde_json::json!({"destination": destination, "schedule": schedule, "timeZone": zone});
    assert_eq!(refused(backup("0 3 * * *", "Europe/Berlin")), [""; 0]);
    assert_eq!(
        refused(backup("0 25 * * *", "UTC")),
        ["spec.backup.schedule"]
    );
    assert_eq!(
        refused(backup("0 3 * * *", "Moon/Base")),
        ["spec.backup.timeZone"]
    );
}

#[test]
fn a_number_is_taken_where_a_quantity_is_asked_for() {
    let case = cases()
        .into_iter()
        .find(|case| case.name == "processors as a number")
        .unwrap();
    assert_eq!(
        parse(&case.new).unwrap().spec.resources.requests["cpu"].0,
        "1"
    );
}

#[test]
fn a_status_that_says_nothing_writes_next_to_nothing() {
    let status = serde_json::to_value(crds::TaskStoreClusterStatus::default()).unwrap();
    assert_eq!(
        status,
        serde_json::json!({"replicas": 0, "readyReplicas": 0})
    );
}

#[test]
fn the_examples_keep_every_rule_and_lose_no_field() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let raw: Value = serde_norway::from_str(&text).unwrap();
        let cluster = parse(&raw).unwrap();
        assert_eq!(validate(&cluster, None), [], "{path:?}");
        let read = serde_json::to_value(&cluster).unwrap();
        assert_contains(&path.display().to_string(), &raw, &read);
        seen += 1;
    }
    assert!(seen >= 3);
}

/// Every field of the example is known to the types; numbers may have become quantities.
fn assert_contains(path: &str, raw: &Value, read: &Value) {
    match (raw, read) {
        (Value::Object(raw), Value::Object(read)) => {
            for (key, value) in raw {
                let known = read
                    .get(key)
                    .unwrap_or_else(|| panic!("{path}.{key} is not a field"));
                assert_contains(&format!("{path}.{key}"), value, known);
            }
        }
        (Value::Array(raw), Value::Array(read)) => {
            assert_eq!(raw.len(), read.len(), "{path}");
            for (index, (raw, read)) in raw.iter().zip(read).enumerate() {
                assert_contains(&format!("{path}[{index}]"), raw, read);
            }
        }
        (Value::Number(number), Value::String(text)) => {
            assert_eq!(&number.to_string(), text, "{path}")
        }
        (raw, read) => assert_eq!(raw, read, "{path}"),
    }
}
