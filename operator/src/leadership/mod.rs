//! Which of several operators acts: one Lease, replaced with its resourceVersion.
//!
//! ```text
//!            create / take an expired or released Lease
//!  Standby ─────────────────────────────────────────────▶ Leading ──renew──┐
//!     ▲                                                      │ ▲───────────┘
//!     └──── renew deadline passed, or another one holds it ──┘
//! ```
//!
//! Another holder's term is counted on our own monotonic clock from when we first saw its record, so clocks
//! of two machines never meet; a leader steps down before its term ends for others, because its deadline is
//! shorter and counted from before the request left. It is a comfort and not a fence: every effect is
//! guarded by itself, and two operators at once do no harm. (kube has no leader election; the crates that
//! add one take a Lease by patches without a resourceVersion.)

mod term;

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use term::{Decision, Observed, Record, decide};

/// Others may take the Lease when they have seen no renewal for this long.
pub const TERM: Duration = Duration::from_secs(10);
/// A leader that could not renew for this long steps down; the rest of the term is for requests in flight.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(7);
/// Between two looks at the Lease.
pub const RETRY_EVERY: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Standby,
    Leading,
}

/// Where the Lease lives, and who we are in it.
#[derive(Clone, Debug)]
pub struct Settings {
    pub namespace: String,
    pub name: String,
    pub identity: String,
}

/// Takes part in the election until `stop`, then releases the Lease when it was ours.
pub async fn run(
    client: Client,
    settings: Settings,
    role: watch::Sender<Role>,
    stop: CancellationToken,
) {
    let leases: Api<Lease> = Api::namespaced(client, &settings.namespace);
    let mut candidate = Candidate {
        leases,
        settings,
        seen: None,
        renewed_at: None,
    };
    loop {
        let pause = candidate.round(&role).await;
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    if *role.borrow() == Role::Leading {
        role.send_replace(Role::Standby);
        candidate.release().await;
    }
}

struct Candidate {
    leases: Api<Lease>,
    settings: Settings,
    seen: Option<(Observed, Lease)>,
    renewed_at: Option<Instant>,
}

impl Candidate {
    /// One look and at most one write; answers how long to pause.
    async fn round(&mut self, role: &watch::Sender<Role>) -> Duration {
        let started = Instant::now();
        let time_left = self
            .renewed_at
            .map_or(RENEW_DEADLINE, |at| {
                (at + RENEW_DEADLINE).saturating_duration_since(started)
            })
            .max(Duration::from_millis(1));
        let outcome = tokio::time::timeout(time_left, self.look_and_write(started)).await;
        let held = match outcome {
            Ok(Ok(held)) => held,
            Ok(Err(error)) => {
                warn!(%error, "lease not renewed");
                self.within_deadline()
            }
            Err(_) => {
                warn!("lease request timed out");
                self.within_deadline()
            }
        };
        let now = if held { Role::Leading } else { Role::Standby };
        if now == Role::Standby {
            self.renewed_at = None;
        }
        if role.send_replace(now) != now {
            info!(role = ?now, identity = %self.settings.identity, "leadership changed");
        }
        RETRY_EVERY.saturating_sub(started.elapsed())
    }

    fn within_deadline(&self) -> bool {
        self.renewed_at
            .is_some_and(|at| at.elapsed() < RENEW_DEADLINE)
    }

    async fn look_and_write(&mut self, started: Instant) -> Result<bool, kube::Error> {
        self.look().await?;
        let me = self.settings.identity.clone();
        let decision = decide(
            &me,
            self.seen.as_ref().map(|(observed, _)| observed),
            started,
        );
        let written = match decision {
            Decision::Stand { .. } => return Ok(false),
            Decision::Create => {
                let lease = self.lease(None);
                self.leases.create(&PostParams::default(), &lease).await
            }
            Decision::Take | Decision::Renew => {
                let lease = self.lease(self.seen.as_ref().map(|(_, lease)| lease));
                let name = self.settings.name.clone();
                self.leases
                    .replace(&name, &PostParams::default(), &lease)
                    .await
            }
        };
        match written {
            Ok(lease) => {
                self.note(lease);
                self.renewed_at = Some(started);
                Ok(true)
            }
            // Somebody else was faster; the next look says who.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn look(&mut self) -> Result<(), kube::Error> {
        match self.leases.get_opt(&self.settings.name).await? {
            Some(lease) => self.note(lease),
            None => self.seen = None,
        }
        Ok(())
    }

    /// Dated by the answer: counted from the request, another holder's term would end too early.
    fn note(&mut self, lease: Lease) {
        let now = Instant::now();
        let record = record(&lease);
        let observed = match self.seen.take() {
            Some((seen, _)) => seen.then(record, now),
            None => Observed::first(record, now),
        };
        self.seen = Some((observed, lease));
    }

    fn lease(&self, current: Option<&Lease>) -> Lease {
        let now = MicroTime(k8s_openapi::jiff::Timestamp::now());
        let spec = current
            .and_then(|lease| lease.spec.clone())
            .unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(self.settings.identity.as_str());
        let transitions = spec.lease_transitions.unwrap_or(0);
        Lease {
            metadata: current.map_or_else(
                || ObjectMeta {
                    name: Some(self.settings.name.clone()),
                    ..ObjectMeta::default()
                },
                |lease| lease.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.settings.identity.clone()),
                lease_duration_seconds: Some(TERM.as_secs() as i32),
                acquire_time: if ours {
                    spec.acquire_time
                } else {
                    Some(now.clone())
                },
                renew_time: Some(now),
                lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Leaves the Lease empty, so that a standby takes over at its next look.
    async fn release(&mut self) {
        let Some((_, lease)) = self.seen.take() else {
            return;
        };
        let mut released = self.lease(Some(&lease));
        if let Some(spec) = released.spec.as_mut() {
            spec.holder_identity = None;
            spec.lease_duration_seconds = Some(1);
        }
        let written = tokio::time::timeout(
            RETRY_EVERY,
            self.leases
                .replace(&self.settings.name, &PostParams::default(), &released),
        )
        .await;
        match written {
            Ok(Ok(_)) => info!("lease released"),
            Ok(Err(error)) => warn!(%error, "lease not released, it runs out by itself"),
            Err(_) => warn!("lease not released in time, it runs out by itself"),
        }
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        term: Duration::from_secs(
            u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0),
        ),
    }
}
