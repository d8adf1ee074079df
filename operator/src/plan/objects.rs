//! What is made once and has no state of its own: account, Services, authority, client certificate, and
//! who owns what.

use jiff::{SignedDuration, Timestamp};

use crds::cluster::VolumePolicy;

use super::action::{Fixture, Owned, Ownership};
use super::{Action, Draft, Waiting};
use crate::certificates::{LEAF_LIFE, LEAF_RENEW_BEFORE};
use crate::observe::{ClientSecret, Drift, Life, Object, Owner};

/// Between two looks for a Secret that the spec names and that is not there, or of no use.
const SECRET_RECHECK: SignedDuration = SignedDuration::from_secs(10);

pub fn plan(draft: &mut Draft<'_>, cluster_id: &str) {
    fixtures(draft);
    authority(draft, cluster_id);
    owners(draft);
}

fn fixtures(draft: &mut Draft<'_>) {
    let observed = draft.observed;
    for (fixture, found) in [
        (Fixture::ServiceAccount, &observed.account),
        (Fixture::PeerService, &observed.peer_service),
        (Fixture::ClientService, &observed.client_service),
    ] {
        match found {
            None => draft.act(Action::CreateFixture(fixture)),
            Some(object) => keep(draft, fixture, object),
        }
    }
}

fn keep(draft: &mut Draft<'_>, fixture: Fixture, object: &Object) {
    match object.owner {
        Owner::Other => draft.wait(Waiting::EarlierObjects {
            names: vec![format!("{fixture:?}")],
        }),
        Owner::Nobody => draft.act(Action::SetOwner {
            kind: Owned::Fixture(fixture),
            name: String::new(),
            version: object.version.clone(),
            owner: Ownership::Cluster,
        }),
        Owner::Ours if object.drift == Drift::Changed => {
            draft.act(Action::RepairFixture {
                fixture,
                version: object.version.clone(),
            });
        }
        Owner::Ours => {}
    }
}

/// Certificates come before pods; one close to its end is issued again under the same authority.
fn authority(draft: &mut Draft<'_>, cluster_id: &str) {
    let wanted = match draft.cluster.spec.storage.when_deleted {
        VolumePolicy::Delete => Owner::Ours,
        VolumePolicy::Retain => Owner::Nobody,
    };
    let known = draft.observed.credentials.authority.as_ref();
    if !known.is_some_and(|known| known.cluster_id == cluster_id && known.owner == wanted) {
        draft.act(Action::EnsureAuthority);
    }
    let expires = draft.observed.credentials.client_expires;
    match draft.cluster.spec.tls.secret_name.as_deref() {
        Some(name) => await_secret(draft, name),
        None if must_issue(draft, expires) || lacks_local_names(draft) => {
            draft.act(Action::EnsureClientCertificate);
        }
        None => {}
    }
}

/// One that was issued before it held them is issued again for an app that needs them, and else in its time.
fn lacks_local_names(draft: &Draft<'_>) -> bool {
    draft.cluster.spec.template.is_some() && !draft.observed.credentials.client_is_local
}

/// Nothing tells us that a Secret of the user's has come: Secrets are not watched.
fn await_secret(draft: &mut Draft<'_>, name: &str) {
    let known = draft.observed.credentials.client_secret.as_ref();
    let state = known.filter(|(known, state)| known == name && *state != ClientSecret::Good);
    if let Some((_, state)) = state {
        draft.wait(Waiting::ClientSecret {
            name: name.to_owned(),
            state: state.clone(),
        });
        let again = draft.now.checked_add(SECRET_RECHECK);
        draft.wake_at(again.unwrap_or(draft.now));
    }
}

/// Whether a certificate is missing or due; if neither, the plan wakes when it is due.
pub fn must_issue(draft: &mut Draft<'_>, expires: Option<Timestamp>) -> bool {
    let Some(expires) = expires else {
        return true;
    };
    let due = expires.checked_sub(LEAF_RENEW_BEFORE).unwrap_or(expires);
    if due > draft.now {
        // Timers are not trusted over months: a reconcile a day is nothing.
        let day = draft
            .now
            .checked_add(SignedDuration::from_hours(24))
            .unwrap_or(due);
        draft.wake_at(due.min(day));
    }
    debug_assert!(LEAF_RENEW_BEFORE < LEAF_LIFE);
    due <= draft.now
}

/// `whenDeleted` decides whether volumes go with the cluster; orphaned pods are taken back.
fn owners(draft: &mut Draft<'_>) {
    let wanted = match draft.cluster.spec.storage.when_deleted {
        VolumePolicy::Delete => (Owner::Ours, Ownership::Cluster),
        VolumePolicy::Retain => (Owner::Nobody, Ownership::Nobody),
    };
    let observed = draft.observed;
    for volume in observed
        .volumes
        .values()
        .filter(|volume| volume.life == Life::Present)
    {
        if volume.owner != wanted.0 && volume.owner != Owner::Other {
            draft.act(Action::SetOwner {
                kind: Owned::Volume,
                name: volume.name.clone(),
                version: volume.version.clone(),
                owner: wanted.1,
            });
        }
    }
    for pod in observed
        .pods
        .values()
        .filter(|pod| pod.owner == Owner::Nobody && pod.life == Life::Present)
    {
        draft.act(Action::SetOwner {
            kind: Owned::Pod,
            name: pod.name.clone(),
            version: pod.version.clone(),
            owner: Ownership::Cluster,
        });
    }
}
