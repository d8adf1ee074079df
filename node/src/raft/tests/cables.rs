//! Cables between members: what one says to another can be lost in silence, or refused as by a dead process.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::cluster::id;
use crate::raft::loopback::own_address;
use crate::storage::types::MemberName;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    Whole,
    /// Nothing arrives, and neither end is told.
    Silent,
    /// Connections are closed, and new ones refused.
    Refused,
}

/// One cable for each direction: (from, to).
#[derive(Default)]
pub struct Cables(BTreeMap<(u64, u64), Cable>);

struct Cable {
    name: MemberName,
    line: watch::Sender<Line>,
}

impl Cables {
    pub async fn between(members: &BTreeMap<u64, MemberName>) -> Cables {
        let mut cables = Cables::default();
        for from in members.keys() {
            for (to, name) in members.iter().filter(|(to, _)| *to != from) {
                let listener = TcpListener::bind((own_address(), 7402)).await.unwrap();
                let (line, state) = watch::channel(Line::Whole);
                let address = MemberName(listener.local_addr().unwrap().to_string());
                tokio::spawn(serve(listener, name.clone(), state));
                let cable = Cable {
                    name: address,
                    line,
                };
                cables.0.insert((*from, *to), cable);
            }
        }
        cables
    }

    /// Where `from` dials the others.
    pub fn of(&self, from: u64) -> BTreeMap<u64, MemberName> {
        let own = self.0.iter().filter(|((near, _), _)| *near == from);
        own.map(|((_, to), cable)| (id(*to), cable.name.clone()))
            .collect()
    }

    pub fn set(&self, one: u64, other: u64, line: Line) {
        for pair in [(one, other), (other, one)] {
            self.0[&pair].line.send_replace(line);
        }
    }
}

async fn serve(listener: TcpListener, to: MemberName, mut line: watch::Receiver<Line>) {
    let address = listener.local_addr().unwrap();
    let mut open = Some(listener);
    loop {
        let state = *line.borrow_and_update();
        if state == Line::Refused {
            open = None;
        } else if open.is_none() {
            // Connections that were just closed may still hold the address.
            while open.is_none() {
                open = TcpListener::bind(address).await.ok();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        let accepted = async {
            match &open {
                Some(listener) => listener.accept().await.ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = accepted => {
                if let Some((near, _)) = accepted {
                    tokio::spawn(carry(near, to.clone(), line.clone()));
                }
            }
            changed = line.changed() => if changed.is_err() { return },
        }
    }
}

async fn carry(mut near: TcpStream, to: MemberName, mut line: watch::Receiver<Line>) {
    let Ok(mut far) = TcpStream::connect(&to.0).await else {
        return;
    };
    let mut copy = std::pin::pin!(tokio::io::copy_bidirectional(&mut near, &mut far));
    loop {
        let state = *line.borrow_and_update();
        tokio::select! {
            _ = &mut copy, if state == Line::Whole => return,
            changed = line.changed() => if changed.is_err() { return },
            () = std::future::ready(()), if state == Line::Refused => return,
        }
    }
}
