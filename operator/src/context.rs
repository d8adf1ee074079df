//! What every pass of this process shares.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use crds::MemberId;
use taskstore_api::admin::ClientTls;
use tokio::sync::watch;

use crate::certificates::Pair;
use crate::clients::members::{Key, Members};
use crate::clients::orders::Orders;
use crate::events::Events;
use crate::leadership::Role;
use crate::metrics::Metrics;
use crate::observe::{Credentials, RefusedGrowth};

pub struct Context {
    pub client: kube::Client,
    pub members: Members,
    pub orders: Orders,
    pub metrics: Metrics,
    pub events: Events,
    pub role: watch::Receiver<Role>,
    /// Image of clusters that name none.
    pub default_image: String,
    held: Mutex<HashMap<Key, Held>>,
}

/// What was learned of one cluster by reading and writing alone, of its Secrets most. Losing it costs a few
/// requests.
#[derive(Default)]
pub struct Held {
    /// The object it was learned for: another one of the same name has other Secrets.
    pub cluster_uid: String,
    pub facts: Credentials,
    pub refused_growth: BTreeMap<MemberId, RefusedGrowth>,
    pub authority: Option<Pair>,
    /// What we show on the members' admin ports.
    pub tls: Option<ClientTls>,
    /// Of the spec whose template the API server has said to be a pod.
    pub proven_generation: Option<i64>,
}

impl Context {
    pub fn new(
        client: kube::Client,
        members: Members,
        orders: Orders,
        metrics: Metrics,
        events: Events,
        role: watch::Receiver<Role>,
        default_image: String,
    ) -> Self {
        Self {
            client,
            members,
            orders,
            metrics,
            events,
            role,
            default_image,
            held: Mutex::default(),
        }
    }

    pub fn leads(&self) -> bool {
        *self.role.borrow() == Role::Leading
    }

    pub fn held<T>(&self, key: &Key, read: impl FnOnce(&mut Held) -> T) -> T {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        read(held.entry(key.clone()).or_default())
    }

    /// A cluster that is gone takes everything we remembered of it along.
    pub fn forget(&self, key: &Key) {
        self.members.forget(key);
        self.orders.forget(key);
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}
