//! What each pod lacks of what the spec asks for, by what is recorded on it.

use std::collections::{BTreeMap, BTreeSet};

use crds::{MemberId, TaskStoreCluster};

use crate::observe::{Life, Observed, Owner, Pod, PodPhase, Start};
use crate::resources::{pod as rendered, sidecar};

/// What a pod lacks of what the spec asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It runs the wanted image, and has it under another name of the spec's.
    Name,
    /// Another image, in the pod as it is.
    Image,
    /// Other images of the containers around the member, which runs on.
    App,
    /// Another pod.
    Template,
}

/// What the spec asks of every pod, rendered once for each revision that is there.
pub struct Wanted<'a> {
    named_image: Option<&'a String>,
    pub(super) image: &'a str,
    pub(super) app_images: BTreeMap<String, String>,
    hashes: BTreeMap<u32, String>,
}

impl<'a> Wanted<'a> {
    pub fn of(cluster: &'a TaskStoreCluster, observed: &'a Observed) -> Self {
        let pods = observed.pods.values();
        let revisions: BTreeSet<u32> = pods.map(|pod| pod.renderer_revision).collect();
        let hash = |revision| Some((revision, rendered::template_hash(cluster, revision)?));
        Self {
            named_image: cluster.spec.image.as_ref(),
            image: rendered::image(cluster, &observed.default_image),
            app_images: sidecar::App::of(cluster)
                .map(|app| app.images())
                .unwrap_or_default(),
            hashes: revisions.into_iter().filter_map(hash).collect(),
        }
    }

    pub fn due(&self, pod: &Pod) -> Option<Due> {
        if pod.life == Life::Deleting || pod.phase == PodPhase::Ended || pod.owner == Owner::Other {
            return None;
        }
        let hash = self.hashes.get(&pod.renderer_revision);
        if hash.is_some_and(|hash| *hash != pod.template_hash) {
            Some(Due::Template)
        } else if pod.named_image.as_ref() == self.named_image {
            // Without a name it keeps what it was made with: another operator's default restarts nobody.
            let app = pod.app.as_ref();
            app.is_some_and(|app| app.images != self.app_images)
                .then_some(Due::App)
        } else if pod.image == self.image {
            Some(Due::Name)
        } else {
            Some(Due::Image)
        }
    }
}

/// Members whose pod is not yet what the spec asks for.
pub fn outdated(cluster: &TaskStoreCluster, observed: &Observed) -> Vec<MemberId> {
    let wanted = Wanted::of(cluster, observed);
    let is_outdated = |pod: &&Pod| {
        pod.start == Start::Serve && wanted.due(pod).is_some_and(|due| due != Due::Name)
    };
    let pods = observed.pods.values().filter(is_outdated);
    let members: BTreeSet<MemberId> = pods.map(|pod| pod.member).collect();
    members.into_iter().collect()
}
