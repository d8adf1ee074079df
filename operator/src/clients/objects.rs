//! Writes that go only onto the version they were decided on, and the look whether that is still the newest.

use k8s_openapi::NamespaceResourceScope;
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, kubernetes};

/// Replaces the status; one that is gone, or has moved, was late.
pub async fn replace_status<K>(
    client: &Client,
    doing: &'static str,
    object: &K,
) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let (name, how) = (object.name_any(), PostParams::default());
    match api.replace_status(&name, &how, object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.is_not_found() => Err(Error::Stale { doing }),
        Err(error) => Err(kubernetes(doing)(error)),
    }
}

/// An error unless this very object is the newest: read uncached.
pub async fn recheck<K>(client: &Client, doing: &'static str, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let found = api.get_metadata_opt(&object.name_any()).await;
    let decided_on = object.meta();
    match found.map_err(kubernetes(doing))? {
        Some(found)
            if found.metadata.resource_version == decided_on.resource_version
                && found.metadata.uid == decided_on.uid =>
        {
            Ok(())
        }
        _ => Err(Error::Stale { doing }),
    }
}
