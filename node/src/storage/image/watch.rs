//! Notices a sled that hangs: on a damaged file a call may never return, with a lock of the whole process
//! held, and from then on nothing would reach the image or be read from it.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Image;
use crate::storage::log::FatalHook;

/// Calls into sled that are under way.
pub struct Watch {
    patience: Duration,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    begun: u64,
    /// By the order in which they began: the first is the oldest.
    since: BTreeMap<u64, Instant>,
}

impl Watch {
    pub fn new(patience: Duration) -> Arc<Watch> {
        Arc::new(Watch {
            patience,
            calls: Mutex::default(),
        })
    }

    /// One call, which no healthy sled takes long for: never a whole scan.
    pub fn call<T>(&self, call: impl FnOnce() -> T) -> T {
        let number = {
            let mut calls = self.calls();
            calls.begun += 1;
            let number = calls.begun;
            calls.since.insert(number, Instant::now());
            number
        };
        let _under_way = UnderWay {
            watch: self,
            number,
        };
        call()
    }

    fn is_hung(&self) -> bool {
        let calls = self.calls();
        let oldest = calls.since.first_key_value();
        oldest.is_some_and(|(_, since)| since.elapsed() > self.patience)
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until the call returns or panics.
struct UnderWay<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.watch.calls().since.remove(&self.number);
    }
}

/// The thread that looks. It ends when this is dropped.
pub struct WatchThread {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WatchThread {
    pub fn start(image: Arc<Image>, fatal: FatalHook) -> io::Result<WatchThread> {
        let (stop, stopped) = channel::<()>();
        let every = image.watch.patience / 4;
        let thread = std::thread::Builder::new().name("image-watch".into());
        let thread = thread.spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
                if image.watch.is_hung() {
                    image.condemn();
                    let error = io::Error::new(io::ErrorKind::TimedOut, "it hangs");
                    fatal("a call into the image", &error);
                    return;
                }
            }
        })?;
        Ok(WatchThread {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for WatchThread {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            drop(thread.join());
        }
    }
}
