//! The disruption budget of the voters: an integer that we compute, never a share of the spec.

use crds::TaskStoreCluster;
use crds::names::{self, label};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{cluster_name, member_selector, metadata};

/// `is_any_fenced` says whether a member still is by its own word, whatever the spec asks for by now.
pub fn build(
    cluster: &TaskStoreCluster,
    min_available: u32,
    is_any_fenced: bool,
) -> PodDisruptionBudget {
    let mut selector = member_selector(cluster);
    selector.insert(label::VOTER.into(), label::TRUE.into());
    let is_fenced = is_any_fenced || !cluster.spec.fenced.is_empty();
    let are_all_plain = cluster.spec.template.is_none() && !is_fenced;
    let unhealthy = match are_all_plain {
        // A pod that is not Ready protects nothing by staying.
        true => "AlwaysAllow",
        // One whose app is not Ready, or that is fenced, holds a voter that is well: all of those at once would
        // be too many.
        false => "IfHealthyBudget",
    };
    PodDisruptionBudget {
        metadata: metadata(cluster, names::disruption_budget(cluster_name(cluster))),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(
                i32::try_from(min_available).unwrap_or(i32::MAX),
            )),
            selector: Some(LabelSelector {
                match_labels: Some(selector),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: Some(unhealthy.into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
