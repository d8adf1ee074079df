//! A new template is proven before anything is changed by it: the API server is asked for a pod of it, and makes
//! none. So a template that it, an admission policy or the namespace's security standard refuses stops nobody.

use crds::conditions::get;
use crds::names::{self, label};
use crds::{ConditionType, MemberId, Reason, TaskStoreCluster};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::error::{Error, kubernetes};
use crate::observe::Start;
use crate::resources::{self, cluster_name, namespace};

/// A pod that is made takes the place of one that is there, which is not known here.
const FULL_QUOTA: &str = "exceeded quota";

/// Once for each spec: none that this process has proven, or that status says was taken up, is proven again.
/// Nothing is sent while paused.
pub fn is_due(cluster: &TaskStoreCluster, proven_generation: Option<i64>) -> bool {
    let status = cluster.status.clone().unwrap_or_default();
    let progressing = get(&status.conditions, ConditionType::Progressing);
    let is_refused = progressing.is_some_and(|known| known.reason == Reason::InvalidSpec.as_str());
    let generation = cluster.metadata.generation;
    let is_taken_up = status.observed_generation == generation && !is_refused;
    let is_proven = proven_generation.is_some() && proven_generation == generation;
    cluster.spec.template.is_some()
        && cluster.metadata.deletion_timestamp.is_none()
        && !cluster.spec.paused
        && !is_taken_up
        && !is_proven
}

/// Why there can be no pod of this template, in the words of the API server; none: there can.
pub async fn refused(client: &Client, cluster: &TaskStoreCluster) -> Result<Option<String>, Error> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace(cluster));
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match pods.create(&parameters, &nobody(cluster)).await {
        Ok(made) => Ok(without_sidecars(&made)),
        Err(kube::Error::Api(answer))
            if matches!(answer.code, 400 | 403 | 422) && !answer.message.contains(FULL_QUOTA) =>
        {
            Ok(Some(answer.message.clone()))
        }
        Err(kube::Error::Api(answer)) if answer.code == 403 => Ok(None),
        Err(error) => Err(kubernetes("template proven")(error)),
    }
}

/// An older API server drops what makes the member a sidecar, and the app would wait for its end.
fn without_sidecars(made: &Pod) -> Option<String> {
    let member = made
        .spec
        .as_ref()
        .and_then(resources::pod::member_container);
    let is_known = member.is_some_and(resources::sidecar::is_sidecar);
    let words = "this Kubernetes knows no sidecar containers: it must be 1.29 or later";
    (!is_known).then(|| words.to_owned())
}

/// The pod of a member that there never is: incarnations begin with 1.
fn nobody(cluster: &TaskStoreCluster) -> Pod {
    let member = MemberId::new(0, 0);
    let identity = resources::pod::Identity {
        cluster_id: cluster.metadata.uid.as_deref().unwrap_or_default(),
        member,
        volume: &names::volume_claim(cluster_name(cluster), member),
        volume_uid: "",
        restore: None,
    };
    // Which image runs without a name is not the template's affair, but a pod must have one.
    let image = resources::pod::image(cluster, label::APP_NAME_VALUE);
    let mut pod = resources::pod::build(cluster, &identity, image, Start::Serve, false);
    let own = names::service_account(cluster_name(cluster));
    if let Some(spec) = pod.spec.as_mut() {
        // Ours may not be there yet; every namespace has one.
        spec.service_account_name.take_if(|account| *account == own);
    }
    pod
}
