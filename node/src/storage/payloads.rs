//! Where payload bytes live: in memory. Only this file knows; payloads that nobody has touched for long
//! are to move to disk behind the same three calls. `apply` enforces the cap, from the sizes in the rows.

use bytes::Bytes;
use imbl::OrdMap;

use crate::task::state::PayloadEffect;

/// A copy costs a pointer and stays as it was, so a snapshot has the payloads of its own moment.
#[derive(Debug, Clone, Default)]
pub struct Payloads {
    held: OrdMap<u64, Bytes>,
}

impl Payloads {
    pub fn apply(&mut self, effects: impl IntoIterator<Item = PayloadEffect>) {
        for effect in effects {
            match effect {
                PayloadEffect::Keep { seq, payload } => {
                    self.held.insert(seq, payload);
                }
                PayloadEffect::Drop { seq } => {
                    self.held.remove(&seq);
                }
            }
        }
    }

    /// `None` once the task is finished.
    pub fn get(&self, seq: u64) -> Option<Bytes> {
        self.held.get(&seq).cloned()
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}
