//! What Kubernetes does without us: garbage collection, scheduling, kubelets, evictions and the budget's
//! controller; and nodes that lose their power.

use std::collections::BTreeMap;

use crds::MemberId;
use operator::observe::{Life, Observed, Owner, Pod, PodPhase, Trouble};

use super::raft::{self, Raft};
use super::{NODES, World};

impl World {
    /// Whatever the scheduler and the kubelets say is one more version of the pod.
    pub(super) fn number_pods(&mut self, before: &Observed) {
        let names: Vec<String> = self.objects.pods.keys().cloned().collect();
        for name in names {
            if before.pods.get(&name) != self.objects.pods.get(&name) {
                let version = self.fresh("v");
                self.objects.pods.get_mut(&name).expect("listed").version = version;
            }
        }
    }

    pub(super) fn collect_garbage(&mut self) {
        let uid = self.uid();
        let is_orphan =
            |owner: &Owner| *owner == Owner::Other || (*owner == Owner::Ours && uid.is_empty());
        for pod in self
            .objects
            .pods
            .values_mut()
            .filter(|pod| is_orphan(&pod.owner))
        {
            pod.life = Life::Deleting;
        }
        for volume in self
            .objects
            .volumes
            .values_mut()
            .filter(|volume| is_orphan(&volume.owner))
        {
            volume.life = Life::Deleting;
        }
        // Nobody confirms the end of a pod on a dead node.
        let dead = &self.dead;
        let is_held = |pod: &Pod| pod.node.as_ref().is_some_and(|node| dead.contains(node));
        self.objects
            .pods
            .retain(|_, pod| pod.life == Life::Present || is_held(pod));
        let in_use: Vec<MemberId> = self.objects.pods.values().map(|pod| pod.member).collect();
        let disks = &mut self.disks;
        self.objects.volumes.retain(|_, volume| {
            let stays = volume.life == Life::Present || in_use.contains(&volume.member);
            if !stays {
                disks.remove(&volume.uid);
            }
            stays
        });
        if self.cluster.is_none() && self.disks.is_empty() {
            // Nothing of it is left anywhere.
            self.raft = Raft::default();
        }
        for object in [
            &mut self.objects.account,
            &mut self.objects.client_service,
            &mut self.objects.peer_service,
        ] {
            if object
                .as_ref()
                .is_some_and(|object| is_orphan(&object.owner))
            {
                *object = None;
            }
        }
        if self
            .objects
            .budget
            .as_ref()
            .is_some_and(|budget| is_orphan(&budget.object.owner))
        {
            self.objects.budget = None;
        }
    }

    /// Its container has another image already, and the kubelet has not seen it.
    pub fn is_told_to_go(&self, member: MemberId) -> bool {
        let pod = self.objects.pod_of(member);
        pod.is_some_and(|pod| is_replaced(&self.replaced, pod))
    }

    /// A volume ties its member to the node it first ran on, as local volumes do.
    pub(super) fn schedule(&mut self) {
        let unplaced: Vec<String> = self
            .objects
            .pods
            .values()
            .filter(|pod| pod.node.is_none() && pod.life == Life::Present)
            .map(|pod| pod.name.clone())
            .collect();
        for name in unplaced {
            let pod = &self.objects.pods[&name];
            let volume_uid = self
                .objects
                .volume_of(pod.member)
                .map(|volume| volume.uid.clone());
            let bound = volume_uid
                .as_ref()
                .and_then(|uid| self.disks.get(uid))
                .and_then(|disk| disk.node.clone());
            let node = bound.or_else(|| {
                let load = |node: &str| {
                    self.objects
                        .pods
                        .values()
                        .filter(|pod| pod.node.as_deref() == Some(node))
                        .count()
                };
                let free = NODES.iter().filter(|(node, _)| self.takes_pods(node));
                free.min_by_key(|(node, _)| load(node))
                    .map(|(node, _)| (*node).to_owned())
            });
            let is_too_big = self.too_big.contains(&pod.uid);
            let node = node.filter(|node| self.takes_pods(node) && !is_too_big);
            let pod = self.objects.pods.get_mut(&name).expect("it was listed");
            match node {
                Some(node) => {
                    pod.zone = NODES
                        .iter()
                        .find(|(name, _)| *name == node)
                        .map(|(_, zone)| (*zone).to_owned());
                    pod.trouble = None;
                    if let Some(disk) = volume_uid.and_then(|uid| self.disks.get_mut(&uid)) {
                        disk.node = Some(node.clone());
                    }
                    pod.node = Some(node);
                }
                None => pod.trouble = Some(Trouble::Unschedulable("no node is left".into())),
            }
        }
    }

    pub(super) fn takes_pods(&self, node: &str) -> bool {
        let mut closed = self.cordoned.iter().chain(&self.dead);
        !closed.any(|known| known == node)
    }

    /// A power cut: what runs there is gone at once, its objects stay as they are.
    pub fn kill_node(&mut self, node: &str) {
        self.dead.push(node.to_owned());
        self.switch_disks();
    }

    pub fn revive_node(&mut self, node: &str) {
        self.dead.retain(|known| known != node);
        self.switch_disks();
    }

    pub(super) fn switch_disks(&mut self) {
        for disk in self.disks.values_mut() {
            disk.is_off = disk
                .node
                .as_ref()
                .is_some_and(|node| self.dead.contains(node));
        }
    }

    pub(super) fn grow_volumes(&mut self) {
        for volume in self.objects.volumes.values_mut() {
            let disk = self.disks.get(&volume.uid);
            // Bound once its first pod has a node.
            if disk.is_some_and(|disk| disk.node.is_some()) {
                volume.capacity_bytes = Some(volume.requested_bytes);
            }
        }
    }

    pub(super) fn run_pods(&mut self) {
        let dead = self.dead.clone();
        let can_mount = self
            .client_secret()
            .is_none_or(|name| self.secrets.contains(&name));
        let counter = &mut self.counter;
        for pod in self.objects.pods.values_mut() {
            let is_replaced = is_replaced(&self.replaced, pod);
            let is_off = pod.node.as_ref().is_some_and(|node| dead.contains(node));
            if pod.node.is_none() || pod.phase == PodPhase::Ended || !can_mount || is_off {
                continue;
            }
            if pod.container.is_some() && is_replaced {
                // The kubelet kills before it pulls.
                pod.container = None;
            } else if pod.container.is_none() && pod.image.starts_with("bad") {
                let words = format!("ImagePullBackOff: no such image: {}", pod.image);
                pod.trouble = Some(Trouble::Container(words));
            } else if pod.container.is_none() {
                *counter += 1;
                pod.container = Some(format!("container-{counter}"));
                (pod.phase, pod.trouble) = (PodPhase::Running, None);
                pod.ip = Some("10.0.0.1".into());
            }
        }
    }

    /// Apps start after their member, and do as their images say: pulled in vain, or ending again and again.
    pub(super) fn run_apps(&mut self) {
        let (counter, replaced) = (&mut self.counter, &self.replaced_apps);
        for pod in self.objects.pods.values_mut() {
            let is_running = raft::is_up(pod);
            let Some(app) = pod.app.as_mut().filter(|_| is_running) else {
                continue;
            };
            app.trouble = None;
            for (name, image) in &app.images {
                let known = app.containers.get(name);
                if known.is_some_and(|id| replaced.contains(id)) {
                    app.containers.remove(name);
                    app.trouble = Some(format!("{name} is not Ready"));
                } else if known.is_none() && !image.starts_with("bad") {
                    *counter += 1;
                    let id = format!("container-{counter}");
                    app.containers.insert(name.clone(), id);
                }
                let reason = match image.split_once(':') {
                    Some(("bad", _)) => "ImagePullBackOff",
                    Some(("crashing", _)) => "CrashLoopBackOff",
                    _ => continue,
                };
                app.trouble = Some(format!("{name} is not Ready: {reason}"));
            }
        }
    }

    pub(super) fn ready_pods(&mut self) {
        let able: Vec<MemberId> = self
            .objects
            .pods
            .values()
            .map(|pod| pod.member)
            .filter(|member| raft::serves(&self.objects, &self.disks, *member))
            .collect();
        for pod in self.objects.pods.values_mut() {
            let volume = self
                .objects
                .volumes
                .values()
                .find(|one| one.member == pod.member);
            let disk = volume.and_then(|volume| self.disks.get(&volume.uid));
            let runs = able.contains(&pod.member) && disk.is_some_and(|disk| !disk.is_fenced);
            let is_member = self
                .raft
                .config
                .as_ref()
                .is_some_and(|config| config.contains(pod.member));
            // A latch: set with a leader, kept without one.
            pod.ready = runs
                && is_member
                && !is_replaced(&self.replaced, pod)
                && (pod.ready || self.raft.leader.is_some());
        }
    }

    pub(super) fn observe_budget(&mut self) {
        let pods = &self.objects.pods;
        let expected = pods.values().filter(|pod| pod.is_voter);
        let healthy = expected
            .clone()
            .filter(|pod| is_pod_ready(pod) && pod.life == Life::Present)
            .count();
        let expected = expected.count();
        if let Some(budget) = self.objects.budget.as_mut() {
            budget.observed_generation = budget.generation;
            (budget.expected, budget.healthy) = (expected, healthy);
            let allowed = healthy as i64 - i64::from(budget.min_available);
            budget.disruptions_allowed = i32::try_from(allowed.max(0)).unwrap_or(0);
        }
    }

    /// An eviction through the API: only what the budget grants. True when it was.
    pub fn evict(&mut self, member: MemberId) -> bool {
        let Some(pod) = self.objects.pod_of(member) else {
            return false;
        };
        let (name, is_healthy) = (pod.name.clone(), is_pod_ready(pod));
        let has_template = pod.app.is_some();
        let is_granted = match self.objects.budget.as_mut() {
            // IfHealthyBudget: what is not Ready may go while enough others are, and is not counted.
            Some(budget) if has_template && !is_healthy => {
                budget.observed_generation == budget.generation
                    && budget.healthy >= budget.min_available as usize
            }
            Some(budget) => {
                let is_granted = budget.disruptions_allowed > 0
                    && budget.observed_generation == budget.generation;
                budget.disruptions_allowed -= i32::from(is_granted);
                is_granted
            }
            None => true,
        };
        if is_granted {
            self.objects.pods.get_mut(&name).expect("it was found").life = Life::Deleting;
            self.referee_quorum("an eviction was granted");
        }
        is_granted
    }
}

fn is_replaced(replaced: &BTreeMap<String, String>, pod: &Pod) -> bool {
    pod.container.is_some() && pod.container.as_ref() == replaced.get(&pod.uid)
}

/// The kubelet's condition is about every container of the pod.
fn is_pod_ready(pod: &Pod) -> bool {
    let app = pod.app.as_ref();
    pod.ready && app.is_none_or(|app| app.trouble.is_none())
}
