//! What no rule of the API server's can say about backups: which fields make a schedule, and which zones there
//! are. And the parts of those that it can.

use super::Violation;
use crate::backup_policy::BackupPolicy;
use crate::cluster::TaskStoreCluster;
use crate::destination::Destination;

const SCHEMES: [&str; 4] = ["s3://", "gs://", "azure://", "file:///"];

pub fn of(cluster: &TaskStoreCluster) -> Option<&BackupPolicy> {
    cluster.spec.backup.as_ref()
}

pub fn violations(cluster: &TaskStoreCluster) -> Option<Violation> {
    let malformed = of(cluster)?.schedule()?.err()?;
    let field = match malformed.is_zone {
        true => "spec.backup.timeZone",
        false => "spec.backup.schedule",
    };
    Some(Violation {
        field: field.into(),
        message: malformed.words.into(),
    })
}

pub fn is_url(url: &str) -> bool {
    let rest = SCHEMES.iter().find_map(|scheme| url.strip_prefix(scheme));
    rest.is_some_and(|rest| !rest.is_empty())
}

pub fn has_good_endpoint(destination: &Destination) -> bool {
    destination.endpoint.as_ref().is_none_or(|endpoint| {
        let schemes = ["http://", "https://"];
        let host = schemes
            .iter()
            .find_map(|scheme| endpoint.strip_prefix(scheme));
        let host = host.map(|host| host.strip_suffix('/').unwrap_or(host));
        host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@']))
            && !destination.url.starts_with("file://")
    })
}
