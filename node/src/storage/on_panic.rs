//! What is done when a thread of the storage panics: nobody would ever answer what is queued behind it.

use std::thread;

/// Held by the thread; does it while the thread unwinds, and nothing otherwise.
pub struct OnPanic<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0)();
        }
    }
}
