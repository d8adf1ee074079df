//! Where backups are: an object store, a place in it, and the rights to it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster::SecretName;

/// A bucket or folder, and how it is reached. Only members reach it; the operator needs no rights there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Destination {
    /// `s3://bucket/prefix`, `gs://bucket/prefix`, `azure://container/prefix` or `file:///folder`; at most 1024
    /// characters, without credentials. No default. May change.
    #[schemars(length(min = 1, max = 1024))]
    pub url: String,

    /// `http(s)://host:port` instead of the provider's own; with `http` nothing is encrypted on the way.
    /// Default: the provider's own. May change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub endpoint: Option<String>,

    /// S3: the bucket's region, at most 64 characters. Default: the provider's own default. May change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,

    /// S3: the bucket stands in the path and not in the host's name, as most stores want that are not the
    /// provider's own. Default false. May change.
    #[serde(default)]
    pub path_style: bool,

    /// Azure: the storage account, at most 64 characters. No default; required there. May change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub account: Option<String>,

    /// Certificate authorities trusted beside the public ones, in PEM; at most 64 KiB. Default none. May change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub ca_bundle: Option<String>,

    /// Secret of the same namespace with a key for each value: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and
    /// `AWS_SESSION_TOKEN`; `GOOGLE_SERVICE_ACCOUNT_KEY`; or `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_SAS_TOKEN`,
    /// `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET` and `AZURE_TENANT_ID`. Default none: the identity of the
    /// members' pods. May change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<SecretName>,
}

/// One life of a store: everything it ever wrote to a bucket stands in the folder `<clusterId>/<incarnation>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// As in `status.identity` of its TaskStoreCluster, or as `taskstore backup list` shows it; at most 63
    /// characters. No default. Never changes.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[0-9A-Za-z-]+$"))]
    pub cluster_id: String,

    /// The number of that life, as shown there. No default. Never changes.
    #[schemars(range(min = 1, max = 65535))]
    pub incarnation: u16,
}
