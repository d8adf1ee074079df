//! User stories on a real Kubernetes, each an async function that fails with an error.
//!
//! A story gets a namespace of its own, which enforces the `restricted` pod security standard, on a
//! cluster it may share with others. It waits on events and records figures; the runner repeats,
//! prints p50 and worst of every figure, and shows the namespace when a story failed.
//!
//! To add one: write `pub async fn name(story: Story) -> Result<()>` in a file of this folder and
//! list it in `all`.

mod backup;
mod bootstrap;
mod bucket;
mod create;
mod demo;
mod disk;
mod drains;
mod fence;
mod figures;
mod grow;
mod harness;
mod hibernation;
mod history;
mod load;
mod made;
mod operators;
mod plugin;
mod pods;
mod recover;
mod recreate;
mod replace;
mod rest;
mod restore;
mod rollout;
mod runner;
mod scale;
mod sidecar;

use crate::cluster::{Cluster, Kind};
use crate::local::{self, Found};
use crate::store::KUBECTL_LIMIT;
use futures::future::BoxFuture;
use std::sync::Arc;

pub use figures::Figures;
pub use runner::{Report, Selection, main, run};

/// What a story needs from the machine. The order is that of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Needs {
    /// Any Kubernetes will do, and others may use it meanwhile.
    AnyCluster,
    /// Any Kubernetes will do, but whole nodes are closed and drained, or all of it is at work: alone.
    AnyNodes,
    /// The local cluster: its nodes, processes, images and volumes. Alone.
    LocalNodes,
    /// The local cluster may be taken down: runs last and alone, and only when this run made the
    /// cluster or the story was asked for by its name.
    WholeMachine,
}

/// What a story is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The local cluster itself.
    Harness,
    /// The product: both charts are installed before it.
    Product,
}

/// A story's name, needs and function.
#[derive(Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    pub needs: Needs,
    pub about: About,
    pub run: fn(Story) -> BoxFuture<'static, anyhow::Result<()>>,
}

/// Where a story plays.
#[derive(Clone)]
pub struct Story {
    pub cluster: Cluster,
    /// Made for this run, removed after it.
    pub namespace: String,
    pub figures: Arc<Figures>,
}

impl Story {
    /// kubectl in the story's namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["--namespace", &self.namespace];
        all.extend(arguments);
        self.cluster.kubectl(&all).await
    }

    /// Gives a node of the local cluster its power back, and waits until it is Ready.
    pub async fn start_node(&self, node: &local::Node) -> anyhow::Result<()> {
        local::start(node).await?;
        let name = format!("node/{}", node.name);
        let ready = ["wait", "--for=condition=Ready", &name, KUBECTL_LIMIT];
        self.cluster.kubectl(&ready).await.map(drop)
    }

    /// `kubectl apply` of YAML in the story's namespace.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        self.cluster
            .kubectl_feed(&["--namespace", &self.namespace, "apply", "-f", "-"], yaml)
            .await
    }
}

/// Whether a story was chosen by name or came with all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    ByName,
    WithAll,
}

impl Needs {
    fn met_by(self, kind: Kind, asked: Asked) -> bool {
        match (self, kind) {
            (Self::AnyCluster | Self::AnyNodes, _) | (Self::LocalNodes, Kind::Local(_)) => true,
            (Self::LocalNodes | Self::WholeMachine, Kind::Given) => false,
            (Self::WholeMachine, Kind::Local(found)) => {
                found == Found::Made || asked == Asked::ByName
            }
        }
    }
}

macro_rules! story {
    ($about:ident, $name:literal, $needs:ident, $function:path) => {
        Entry {
            name: $name,
            needs: Needs::$needs,
            about: About::$about,
            run: |story| Box::pin($function(story)),
        }
    };
}

/// All stories, in the order of a run.
pub fn all() -> Vec<Entry> {
    let mut entries = vec![
        story!(
            Harness,
            "pods-find-each-other",
            LocalNodes,
            harness::pods_find_each_other
        ),
        story!(Harness, "node-returns", LocalNodes, harness::node_returns),
        story!(
            Harness,
            "node-is-cut-off",
            LocalNodes,
            harness::node_is_cut_off
        ),
        story!(Harness, "cluster-up-twice", LocalNodes, harness::up_twice),
        story!(
            Harness,
            "cluster-killed-up-leaves-nothing",
            WholeMachine,
            harness::killed_up_leaves_nothing
        ),
        story!(Product, "bucket", LocalNodes, bucket::fit_for_backups),
        story!(Product, "rules", AnyCluster, create::rules),
        story!(Product, "create", AnyCluster, create::create),
        story!(Product, "kubectl-taskstore", LocalNodes, plugin::asked),
        story!(
            Product,
            "nothing-asked-at-rest",
            LocalNodes,
            rest::nothing_asked
        ),
        story!(Product, "pod-killed", AnyCluster, pods::pod_killed),
        story!(
            Product,
            "leader-pod-deleted",
            AnyCluster,
            pods::leader_pod_deleted
        ),
        story!(Product, "leader-killed", LocalNodes, pods::leader_killed),
        story!(
            Product,
            "node-lost-member-replaced",
            LocalNodes,
            replace::node_lost
        ),
        story!(
            Product,
            "volume-lost-member-replaced",
            AnyCluster,
            replace::volume_lost
        ),
        story!(
            Product,
            "majority-lost-and-recovered",
            LocalNodes,
            recover::majority_lost
        ),
        story!(
            Product,
            "namespace-lost-and-restored",
            LocalNodes,
            restore::namespace_lost
        ),
        story!(Product, "disk-full", LocalNodes, disk::full_on_one_member),
        story!(Product, "volumes-grow", LocalNodes, grow::volumes_grow),
        story!(
            Product,
            "operator-killed-in-bootstrap",
            AnyNodes,
            bootstrap::operator_killed
        ),
        story!(
            Product,
            "scale-3-5-3-with-drains",
            AnyNodes,
            scale::out_and_in
        ),
        story!(
            Product,
            "rolling-image-change",
            LocalNodes,
            rollout::image_of_three
        ),
        story!(
            Product,
            "rolling-image-change-of-five",
            LocalNodes,
            rollout::image_of_five
        ),
        story!(Product, "rolling-change", AnyCluster, rollout::resources),
        story!(
            Product,
            "bad-image-then-fix",
            AnyCluster,
            rollout::bad_image_then_fix
        ),
        story!(
            Product,
            "sidecar-app-crashes-and-changes",
            LocalNodes,
            sidecar::app_crashes_and_changes
        ),
        story!(Product, "all-nodes-drained", AnyNodes, drains::all_nodes),
        story!(
            Product,
            "drained-member-replaced",
            AnyNodes,
            drains::replaced
        ),
        story!(
            Product,
            "node-with-two-voters-drained",
            AnyNodes,
            drains::two_voters_on_a_node
        ),
        story!(
            Product,
            "hibernate-and-wake",
            AnyCluster,
            hibernation::hibernate_and_wake
        ),
        story!(Product, "leader-fenced", AnyCluster, fence::leader_fenced),
        story!(Product, "backed-up", LocalNodes, backup::backed_up),
        story!(
            Product,
            "delete-and-create",
            AnyCluster,
            recreate::delete_and_create
        ),
        story!(Product, "status-lost", AnyCluster, operators::status_lost),
        story!(
            Product,
            "two-operators-at-once",
            AnyNodes,
            operators::two_at_once
        ),
        story!(Product, "demo", AnyNodes, demo::short),
    ];
    entries.sort_by_key(|entry| entry.needs);
    entries
}
