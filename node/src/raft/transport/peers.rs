//! The other members as this one reaches them: one entry each, its connections, what it last said.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::dial::{self, DialError};
use super::frame::{self, Tag};
use super::handshake::HandshakeError;
use super::mux::{CallError, Mux, Unreachable, remaining};
use super::tls::TlsStore;
use super::wire::{Facts, ForwardHead, Lane};
use super::{Conn, Me, Options};
use crate::limits::{CONTROL_CALLS_MAX, FORWARDS_MAX};
use crate::storage::types::MemberName;

pub use super::mux::CallError as ForwardError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEvent {
    /// Its connections closed and a new one was refused: the process is gone, not just silent.
    PeerDown(u64),
}

pub struct Peers {
    me: Arc<Me>,
    tls: Arc<TlsStore>,
    options: Arc<Options>,
    events: broadcast::Sender<PeerEvent>,
    peers: Mutex<BTreeMap<u64, Arc<Peer>>>,
    heard: Mutex<BTreeMap<u64, Heard>>,
    led_by: watch::Sender<Option<u64>>,
    forwards: AtomicU64,
}

/// Counts a forwarded request for as long as its answer is waited for.
struct Forwarding<'a>(&'a AtomicU64);

impl<'a> Forwarding<'a> {
    fn count(forwards: &'a AtomicU64) -> Forwarding<'a> {
        forwards.fetch_add(1, Ordering::Relaxed);
        Forwarding(forwards)
    }
}

impl Drop for Forwarding<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a member said with its last answered heartbeat.
#[derive(Debug, Clone)]
pub struct Heard {
    pub at: Instant,
    pub facts: Facts,
}

pub struct Peer {
    pub(crate) link: Link,
    pub(crate) control: Mux,
    pub(crate) forward: Mux,
    /// The append connection while no stream uses it.
    pub(crate) append: Slot,
}

impl Peers {
    pub fn new(me: Me, tls: Arc<TlsStore>, options: Options) -> Arc<Peers> {
        Arc::new(Peers {
            me: Arc::new(me),
            tls,
            options: Arc::new(options),
            events: broadcast::channel(64).0,
            peers: Mutex::default(),
            heard: Mutex::default(),
            led_by: watch::Sender::new(None),
            forwards: AtomicU64::new(0),
        })
    }

    pub fn me(&self) -> &Me {
        &self.me
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn tls(&self) -> &Arc<TlsStore> {
        &self.tls
    }

    pub fn events(&self) -> broadcast::Receiver<PeerEvent> {
        self.events.subscribe()
    }

    /// The entry of a member; a changed name closes the connections to the old one.
    pub fn peer(&self, to: u64, name: &MemberName) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(&to)
            && peer.link.name == *name
        {
            return Arc::clone(peer);
        }
        let link = Link {
            me: Arc::clone(&self.me),
            tls: Arc::clone(&self.tls),
            options: Arc::clone(&self.options),
            events: self.events.clone(),
            to,
            name: name.clone(),
            said: Arc::default(),
        };
        let peer = Arc::new(Peer {
            control: Mux::start(
                link.clone(),
                Lane::Control,
                Unreachable::Wait,
                CONTROL_CALLS_MAX,
            ),
            forward: Mux::start(link.clone(), Lane::Forward, Unreachable::Fail, FORWARDS_MAX),
            append: Slot::default(),
            link,
        });
        peers.insert(to, Arc::clone(&peer));
        peer
    }

    /// Closes the connections to members that are none any more.
    pub fn retain(&self, keep: impl Fn(u64) -> bool) {
        self.peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| keep(*id));
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| keep(*id));
    }

    /// Sends a client's request to a member, usually the leader; it is not forwarded from there again.
    /// Dropping the future tells the member that nobody waits any more.
    pub async fn forward(
        &self,
        to: u64,
        name: &MemberName,
        request: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, ForwardError> {
        let _forwarding = Forwarding::count(&self.forwards);
        let deadline_ms = u64::try_from(remaining(deadline).as_millis()).unwrap_or(u64::MAX);
        let mut head = BytesMut::new();
        frame::encode(
            Tag::Forward,
            &ForwardHead {
                deadline_ms,
                hop: 1,
            },
            &mut head,
        )
        .map_err(|e| CallError::NotSent(e.to_string()))?;
        self.peer(to, name)
            .forward
            .call(Tag::Forward, head.freeze(), request, deadline)
            .await
    }

    /// Forwarded requests whose answers are waited for.
    pub fn forwards(&self) -> u64 {
        self.forwards.load(Ordering::Relaxed)
    }

    /// Members that answered a heartbeat of ours within `within`, and what they said.
    pub fn heard(&self, within: Duration) -> BTreeMap<u64, Heard> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard
            .iter()
            .filter(|(_, h)| h.at.elapsed() <= within)
            .map(|(id, h)| (*id, h.clone()))
            .collect()
    }

    pub(crate) fn note_heard(&self, from: u64, facts: Facts) {
        let heard = Heard {
            at: Instant::now(),
            facts,
        };
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(from, heard);
    }

    /// A heartbeat of a leader was accepted.
    pub(super) fn note_led_by(&self, leader: u64) {
        self.led_by.send_replace(Some(leader));
    }

    /// Changes with each heartbeat that is accepted from a leader.
    pub fn led_by(&self) -> watch::Receiver<Option<u64>> {
        self.led_by.subscribe()
    }

    /// Knocks at a member whose connections to us closed.
    pub(super) async fn probe(&self, member_id: u64, name: &MemberName) {
        let knock = dial::connect(&self.options, member_id, name);
        let knock = tokio::time::timeout(self.options.connect_timeout, knock).await;
        if let Ok(Err(DialError::ConnectionRefused { .. })) = knock {
            tracing::info!(peer = member_id, %name, "peer is down: connections closed and a new one refused");
            let _ = self.events.send(PeerEvent::PeerDown(member_id));
        }
    }
}

/// How one member is reached.
#[derive(Clone)]
pub struct Link {
    me: Arc<Me>,
    tls: Arc<TlsStore>,
    pub(crate) options: Arc<Options>,
    events: broadcast::Sender<PeerEvent>,
    pub(crate) to: u64,
    name: MemberName,
    /// The last failure that was logged, so that a peer that stays away fills no log.
    said: Arc<Mutex<String>>,
}

impl Link {
    pub(crate) async fn dial(&self, lane: Lane) -> Result<Conn, DialError> {
        let conn = dial::dial(
            &self.me,
            &self.tls,
            &self.options,
            self.to,
            &self.name,
            lane,
        )
        .await?;
        self.said
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        Ok(conn)
    }

    pub(crate) fn report(&self, error: &DialError) {
        let text = error.to_string();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said == text {
            return;
        }
        match error {
            DialError::Handshake {
                source: HandshakeError::RefusedByPeer(_) | HandshakeError::RefusedPeer(_),
                ..
            } => {
                tracing::warn!(peer = self.to, %error, "handshake refused");
            }
            _ => tracing::info!(peer = self.to, %error, "peer not reached"),
        }
        *said = text;
    }

    pub(super) fn peer_down_if_refused(&self, error: &DialError) {
        if matches!(error, DialError::ConnectionRefused { .. }) {
            let _ = self.events.send(PeerEvent::PeerDown(self.to));
        }
    }
}

/// Holds a connection between two uses.
#[derive(Default, Clone)]
pub struct Slot(Arc<Mutex<Option<Conn>>>);

impl Slot {
    /// The kept connection, or a new one.
    pub(crate) async fn lease(&self, link: &Link, lane: Lane) -> Result<Leased, DialError> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let conn = match kept {
            Some(conn) => conn,
            None => link
                .dial(lane)
                .await
                .inspect_err(|error| link.report(error))?,
        };
        Ok(Leased {
            conn: Some(conn),
            slot: self.clone(),
        })
    }
}

/// Goes back to its slot unless it was found broken.
pub(crate) struct Leased {
    conn: Option<Conn>,
    slot: Slot,
}

impl Leased {
    pub(crate) fn conn(&mut self) -> Option<&mut Conn> {
        self.conn.as_mut()
    }

    pub(crate) fn close(&mut self) {
        self.conn = None;
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            *self.slot.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(conn);
        }
    }
}
