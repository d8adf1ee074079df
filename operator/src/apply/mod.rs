//! Does what the plan says, in its order, and stops at the first failure.
//!
//! Each effect is guarded by itself: creates that may exist already, patches with the resourceVersion they
//! were decided on, deletes with a UID, membership changes with the last membership log id and the term.
//! What a guard cannot see is read again, uncached, right before (see [`Recheck`]). Independent actions of
//! one kind run side by side.
//!
//! Patches are merge patches that carry `resourceVersion`: the API server refuses them with a conflict when
//! the object moved, just as it does for a JSON patch with a test, without one more dependency.

mod backups;
pub mod certificates;
mod members;
mod objects;
mod pods;
pub mod proof;

use crds::names::label;
use crds::{MemberId, TaskStoreCluster};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::ListParams;
use tracing::info;

use crate::clients::objects::recheck;
use crate::context::Context;
use crate::error::{Error, kubernetes};
use crate::events;
use crate::observe::{Budget, Life, Observed, Pod as SeenPod, VolumeState, objects as seen};
use crate::plan::Action;
use crate::plan::action::Cost;
use crate::resources::{cluster_name, namespace};
use backups::asked;

/// What the actions of one pass share.
pub struct Scope<'a> {
    pub ctx: &'a Context,
    pub cluster: &'a TaskStoreCluster,
    pub observed: &'a Observed,
    /// Who the cluster is: recorded, or read from the labels of volumes that are being taken up.
    pub cluster_id: String,
}

impl<'a> Scope<'a> {
    pub fn new(ctx: &'a Context, cluster: &'a TaskStoreCluster, observed: &'a Observed) -> Self {
        let recorded = cluster
            .status
            .as_ref()
            .and_then(|status| status.identity.as_ref());
        let cluster_id = recorded
            .map(|identity| identity.cluster_id.clone())
            .or_else(|| {
                let mut volumes = observed.volumes.values();
                let in_use = volumes.find(|volume| volume.state != VolumeState::Retired);
                in_use.map(|volume| volume.cluster_id.clone())
            })
            .or_else(|| cluster.metadata.uid.clone())
            .unwrap_or_default();
        Self {
            ctx,
            cluster,
            observed,
            cluster_id,
        }
    }

    pub fn name(&self) -> &str {
        cluster_name(self.cluster)
    }

    pub fn namespace(&self) -> &str {
        namespace(self.cluster)
    }

    pub fn key(&self) -> (String, String) {
        (self.namespace().to_owned(), self.name().to_owned())
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.ctx.client.clone(), self.namespace())
    }
}

pub async fn apply(scope: &Scope<'_>, actions: &[Action]) -> Result<(), Error> {
    if actions.iter().any(|action| action.recheck().of_cluster()) {
        // An operator with an old cache must not undo what a later one has recorded.
        recheck(&scope.ctx.client, "cluster read again", scope.cluster).await?;
    }
    for alike in actions.chunk_by(|one, other| one.kind() == other.kind()) {
        try_join_all(alike.iter().map(|action| perform(scope, action))).await?;
    }
    Ok(())
}

/// Voters change or go down only while no eviction can be granted, and what a cache shows closed may be open
/// by now, or a pod made again without its label.
async fn recheck_budget(
    scope: &Scope<'_>,
    allows: impl FnOnce(&Budget, &[SeenPod]) -> bool,
) -> Result<(), Error> {
    let doing = "budget read again";
    let name = crds::names::disruption_budget(scope.name());
    let ours = ListParams::default().labels(&format!("{}={}", label::CLUSTER, scope.name()));
    let (budgets, pods) = (scope.api::<PodDisruptionBudget>(), scope.api::<Pod>());
    let (budget, pods) =
        tokio::try_join!(budgets.get_opt(&name), pods.list(&ours)).map_err(kubernetes(doing))?;
    let pods: Vec<_> = pods
        .items
        .iter()
        .filter_map(|pod| seen::pod(pod, ""))
        .collect();
    let is_allowed = budget.is_some_and(|found| {
        let is_any_fenced = scope.observed.is_any_fenced();
        allows(&seen::budget(&found, scope.cluster, is_any_fenced), &pods)
    });
    if is_allowed {
        Ok(())
    } else {
        Err(Error::Stale { doing })
    }
}

/// A pod on a retired or exchanged volume must not start: retired members together could elect each other.
async fn recheck_volume(scope: &Scope<'_>, member: MemberId, uid: &str) -> Result<(), Error> {
    let doing = "volume read again";
    let name = pods::volume_name(scope, member);
    let found = scope
        .api::<PersistentVolumeClaim>()
        .get_opt(&name)
        .await
        .map_err(kubernetes(doing))?;
    let volume = found.as_ref().and_then(|claim| seen::volume(claim, ""));
    match volume {
        Some(volume)
            if volume.uid == uid
                && volume.member == member
                && volume.state != VolumeState::Retired
                && volume.life == Life::Present =>
        {
            Ok(())
        }
        _ => Err(Error::Stale { doing }),
    }
}

/// Two incarnations must not run side by side without the user's word for it.
async fn recheck_pods(scope: &Scope<'_>, from: MemberId, to: MemberId) -> Result<(), Error> {
    let doing = "pods listed again";
    let ours = ListParams::default().labels(&format!("{}={}", label::CLUSTER, scope.name()));
    let found = scope
        .api::<Pod>()
        .list(&ours)
        .await
        .map_err(kubernetes(doing))?;
    let accepted = &scope.cluster.spec.recovery.accept_unconfirmed;
    let is_left = found
        .items
        .iter()
        .filter_map(|pod| seen::pod(pod, ""))
        .map(|pod| pod.member)
        .filter(|member| member.incarnation() < to.incarnation())
        .any(|member| member == from || !accepted.contains(&member));
    match is_left {
        false => Ok(()),
        true => Err(Error::Stale { doing }),
    }
}

async fn perform(scope: &Scope<'_>, action: &Action) -> Result<(), Error> {
    if let Action::CreatePod {
        member, volume_uid, ..
    } = action
    {
        recheck_volume(scope, *member, volume_uid).await?;
    }
    if let Some((from, to)) = action.succession() {
        recheck_pods(scope, from, to).await?;
    }
    match action {
        Action::SetVoters { voters, .. } => {
            recheck_budget(scope, |budget, pods| budget.allows(voters, pods.iter())).await?;
        }
        // A single voter has no budget, and nobody who could stand in for it.
        Action::SetImage {
            member,
            cost: Cost::Vote { of },
            ..
        }
        | Action::RenewPod {
            member,
            cost: Cost::Vote { of },
            ..
        } if of.len() > 1 => {
            recheck_budget(scope, |budget, pods| {
                budget.spares(*member, of, pods.iter())
            })
            .await?;
        }
        _ => {}
    }
    let outcome = act(scope, action).await;
    scope.ctx.metrics.action(action.kind(), outcome.is_ok());
    if outcome.is_ok() && events::is_worth_telling(action) {
        info!(namespace = scope.namespace(), cluster = scope.name(), %action, "done");
        scope.ctx.events.done(scope.cluster, action);
    }
    outcome
}

async fn act(scope: &Scope<'_>, action: &Action) -> Result<(), Error> {
    match action {
        Action::EnsureAuthority => certificates::ensure_authority(scope).await,
        Action::EnsureClientCertificate => certificates::ensure_client(scope).await,
        Action::EnsureCertificate { member } => certificates::ensure_member(scope, *member).await,
        Action::DeleteCertificate { member } => certificates::delete_member(scope, *member).await,
        Action::CreateFixture(fixture) => objects::create_fixture(scope, *fixture).await,
        Action::RepairFixture { fixture, version } => {
            objects::repair_fixture(scope, *fixture, version).await
        }
        Action::SetOwner {
            kind,
            name,
            version,
            owner,
        } => objects::set_owner(scope, *kind, name, version, *owner).await,
        Action::CreateBudget { min_available } => {
            objects::create_budget(scope, *min_available).await
        }
        Action::SetBudget {
            min_available,
            version,
        } => objects::set_budget(scope, *min_available, version).await,
        Action::DeleteBudget { uid } => objects::delete_budget(scope, uid).await,
        Action::CreateVolume { member } => pods::create_volume(scope, *member).await,
        Action::MarkFormatted { member, version } => {
            pods::mark_formatted(scope, *member, version).await
        }
        Action::RetireVolume { member, version } => {
            pods::retire_volume(scope, *member, version).await
        }
        Action::DeleteVolume { member, uid } => pods::delete_volume(scope, *member, uid).await,
        Action::HandVolume { from, to, version } => {
            pods::hand_volume(scope, *from, *to, version).await
        }
        Action::GrowVolume {
            member,
            size,
            version,
        } => pods::grow_volume(scope, *member, size, version).await,
        Action::ConfirmLoss { survivors } => members::confirm_loss(scope, survivors).await,
        Action::CreatePod {
            member,
            volume_uid,
            start,
            is_voter,
        } => pods::create(scope, *member, volume_uid, *start, *is_voter).await,
        Action::MarkVoter { member, version } => pods::mark_voter(scope, *member, version).await,
        Action::DeletePod { member, uid, .. } => pods::delete(scope, *member, uid, None).await,
        Action::SetImage {
            member,
            image,
            version,
            replaces,
            ..
        } => pods::set_image(scope, *member, image, version, replaces.as_deref()).await,
        Action::SetAppImages {
            member,
            images,
            version,
            replaces,
        } => pods::set_app_images(scope, *member, images, version, replaces).await,
        Action::RenewPod {
            member,
            uid,
            version,
            ..
        } => pods::delete(scope, *member, uid, Some(version)).await,
        Action::Format { member, volume_uid } => members::format(scope, *member, volume_uid).await,
        Action::Initialize { on, voters } => members::initialize(scope, *on, voters).await,
        Action::ReserveMembers { leader, count } => members::reserve(scope, *leader, *count).await,
        Action::AddLearners {
            leader,
            members,
            guard,
        } => members::add_learners(scope, *leader, members, *guard).await,
        Action::RemoveLearners {
            leader,
            members,
            guard,
        } => members::remove_learners(scope, *leader, members, *guard).await,
        Action::SetVoters {
            leader,
            voters,
            guard,
        } => members::set_voters(scope, *leader, voters, *guard).await,
        Action::SetFenced { member, fenced } => members::set_fenced(scope, *member, *fenced).await,
        Action::CheckDestination {
            member,
            about,
            failures,
        } => backups::check(scope, asked(scope, *member, about, *failures)?),
        Action::CreateBackup { name } => backups::create(scope, name).await,
        Action::OrderBackup {
            name,
            uid,
            member,
            previous,
            failures,
        } => {
            let asked = asked(scope, *member, uid, *failures)?;
            backups::order(scope, asked, name, previous.as_ref())
        }
        Action::NoteBackup {
            name,
            version,
            status,
        } => backups::note(scope, name, version, status).await,
        Action::PruneBackups {
            member,
            about,
            in_use,
            failures,
        } => backups::prune(scope, asked(scope, *member, about, *failures)?, in_use),
        Action::DeleteBackup { name, uid } => backups::delete(scope, name, uid).await,
        Action::CreateDrill { about, lineage } => backups::drill(scope, about, lineage).await,
        Action::DeleteDrill { uid } => backups::end_drill(scope, uid).await,
        Action::ShipLog {
            member,
            about,
            instead_of,
            failures,
        } => {
            let asked = asked(scope, *member, about, *failures)?;
            backups::ship(scope, asked, *instead_of)
        }
        Action::StopShipping { member, failures } => {
            backups::stop_shipping(scope, asked(scope, *member, "", *failures)?)
        }
        Action::TransferLeader { leader, to, term } => {
            members::transfer_leader(scope, *leader, *to, *term).await
        }
    }
}
