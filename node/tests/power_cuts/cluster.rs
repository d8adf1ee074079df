//! Three members in one process, over real Raft and sockets, whose power fails at once.

use std::collections::BTreeMap;
use std::time::Duration;

use taskstore::raft::certs::Authority;
use taskstore::raft::consensus::Role;
use taskstore::storage::start::StartError;

use crate::member::{CLUSTER, Machine, Member};

/// How long a member may take over an election before another one is asked.
const ELECTION_PATIENCE: Duration = Duration::from_millis(100);

pub struct Cluster {
    machines: Vec<Machine>,
    pub running: BTreeMap<u64, Member>,
    is_lying: bool,
}

impl Cluster {
    /// Three members that run, initialized.
    pub async fn start(rng: &mut fastrand::Rng, is_lying: bool) -> Cluster {
        let authority = Authority::new(CLUSTER).unwrap();
        let mut cluster = Cluster {
            machines: (1..=3)
                .map(|number| Machine::new(number, &authority))
                .collect(),
            running: BTreeMap::new(),
            is_lying,
        };
        cluster.boot(rng, None).await.unwrap();
        let voters: BTreeMap<u64, String> = cluster
            .machines
            .iter()
            .map(|machine| (machine.member_id(), machine.name.0.clone()))
            .collect();
        let founder = &cluster.running[&1].consensus;
        founder.initialize(voters).await.unwrap();
        cluster
    }

    /// Starts all members but `without` on what their disks hold.
    pub async fn boot(
        &mut self,
        rng: &mut fastrand::Rng,
        without: Option<u64>,
    ) -> Result<(), StartError> {
        let machines = self.machines.iter();
        for machine in machines.filter(|machine| Some(machine.number) != without) {
            let member = machine.boot(rng.u64(..), self.is_lying).await?;
            self.running.insert(machine.number, member);
        }
        Ok(())
    }

    /// All machines lose their power at once: of what was not synced an arbitrary part is lost. The
    /// processes end as they are; nothing of theirs reaches the disks that the next boot finds.
    pub async fn cut(&mut self, rng: &mut fastrand::Rng) {
        for member in self.running.values() {
            member.power_off();
        }
        for machine in &mut self.machines {
            let Some(member) = self.running.get(&machine.number) else {
                continue;
            };
            machine.lose_power(member, rng);
        }
        let ended = std::mem::take(&mut self.running).into_values();
        futures::future::join_all(ended.map(Member::end)).await;
    }

    /// A member that leads and has applied everything committed. Whoever sleeps is asked to stand.
    pub async fn leader(&self, rng: &mut fastrand::Rng) -> u64 {
        loop {
            let numbers: Vec<u64> = self.running.keys().copied().collect();
            let asked = &self.running[&numbers[rng.usize(0..numbers.len())]];
            // A member whose engine has just ended is found out by whoever waits for the leader.
            let _ = asked.consensus.raft().trigger().elect(true).await;
            let leads = self.running.iter().map(|(number, member)| {
                let mut role = member.consensus.watch_role();
                Box::pin(async move {
                    let leads = role.wait_for(|role| matches!(role, Role::Leads { .. }));
                    if leads.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                    *number
                })
            });
            let first = futures::future::select_all(leads);
            let Ok((leader, ..)) = tokio::time::timeout(ELECTION_PATIENCE, first).await else {
                continue;
            };
            let confirmed = self.running[&leader].consensus.confirm_leadership();
            if let Ok(Ok(())) = tokio::time::timeout(ELECTION_PATIENCE, confirmed).await {
                return leader;
            }
        }
    }

    /// Returns as soon as a member is about to drop its log for a snapshot of the leader.
    pub async fn installing(&self) {
        while !self.running.values().any(Member::is_installing) {
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }

    /// The members' state hashes once all have applied the same.
    pub async fn hashes(&self) -> Vec<u128> {
        loop {
            let seen: Vec<(u64, u128)> = self
                .running
                .values()
                .map(|member| (member.applied(), member.store.read(|state| state.hash())))
                .collect();
            if seen.iter().all(|(applied, _)| *applied == seen[0].0) {
                return seen.into_iter().map(|(_, hash)| hash).collect();
            }
            let behind = seen.iter().map(|(applied, _)| *applied).max();
            for member in self.running.values() {
                let mut progress = member.store.progress();
                let caught_up =
                    progress.wait_for(|now| now.applied.map(|applied| applied.index) >= behind);
                caught_up.await.unwrap();
            }
        }
    }
}
