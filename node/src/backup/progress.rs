//! How far a backup has come, for whoever watches: only the newest word counts.

use tokio::sync::watch;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    Uploading,
    /// Every part is read back.
    Verifying,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub phase: Phase,
    pub bytes_done: u64,
    pub bytes_total: u64,
}

/// Where progress is noted.
#[derive(Debug, Clone)]
pub struct Noted(watch::Sender<Progress>);

impl Default for Noted {
    fn default() -> Noted {
        Noted(watch::Sender::new(Progress::default()))
    }
}

impl Noted {
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.0.subscribe()
    }

    pub(super) fn enter(&self, phase: Phase, bytes_total: u64) {
        self.0.send_replace(Progress {
            phase,
            bytes_done: 0,
            bytes_total,
        });
    }

    pub(super) fn add(&self, bytes: u64) {
        self.0.send_modify(|progress| progress.bytes_done += bytes);
    }
}
