//! What is read of a bucket by whoever restores from it: `Order` of the member's command line.

use crds::destination::{Destination, Lineage};
use crds::restore::RestoreUpto;
use serde_json::json;

use super::backup::CREDENTIALS;

/// As JSON. It names the folder of the credentials and holds none of them.
pub fn order(
    from: &Destination,
    lineage: &Lineage,
    backup: Option<&str>,
    upto: &RestoreUpto,
) -> String {
    let time = upto.time.as_ref();
    let mut order = json!({
        "url": from.url,
        "endpoint": from.endpoint,
        "region": from.region,
        "pathStyle": from.path_style,
        "account": from.account,
        "caBundle": from.ca_bundle,
        "credentials": from.credentials.as_ref().map(|_| CREDENTIALS),
        "clusterId": lineage.cluster_id,
        "incarnation": lineage.incarnation,
        "backup": backup,
        "uptoIndex": upto.index,
        "uptoTimeMs": time.map(|time| time.0.as_millisecond()),
    });
    if let Some(fields) = order.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    order.to_string()
}

#[cfg(test)]
mod tests {
    use crds::cluster::SecretName;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn an_order_names_the_bucket_and_no_secret_is_in_it() {
        let lineage = Lineage {
            cluster_id: "lost".into(),
            incarnation: 4,
        };
        let mut from = Destination {
            url: "s3://bucket/team".into(),
            path_style: true,
            ..Destination::default()
        };
        let upto = RestoreUpto {
            index: None,
            time: Some(Time("2026-01-31T12:00:00Z".parse().expect("a time"))),
        };
        assert_eq!(
            order(&from, &lineage, None, &upto),
            "{\"clusterId\":\"lost\",\"incarnation\":4,\"pathStyle\":true,\
             \"uptoTimeMs\":1769860800000,\"url\":\"s3://bucket/team\"}"
        );
        let name = "keys".to_owned();
        from.credentials = Some(SecretName { name });
        let with_credentials = order(&from, &lineage, Some("b"), &RestoreUpto::default());
        assert!(
            with_credentials.contains("\"credentials\":\"backup\""),
            "{with_credentials}"
        );
        assert!(
            with_credentials.contains("\"backup\":\"b\""),
            "{with_credentials}"
        );
    }
}
