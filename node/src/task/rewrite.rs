//! The state under a new incarnation: what a restore and the recovery of a lost majority go on from.

use super::row::Phase;
use super::state::{At, State};

impl State {
    /// Takes the state over for the first member of a later incarnation; `at` is the last entry applied, under
    /// that incarnation. Exactly this changes:
    ///
    /// - A running task is available again, at the revision of `at`. No attempt, no abandonment is counted.
    ///   Its token settles and extends nothing any more, and whoever retries the claim gets other tasks.
    /// - The store's revision is that of `at`. Each later revision and token is greater than it, and it is
    ///   greater than all of the incarnations before.
    /// - `member_id` counts as given, so the numbers given next are above it.
    /// - Reserved member numbers are forgotten: they are of the incarnations before.
    ///
    /// Everything else stays as it is: the clocks too, and what makes a create and a settle take effect once.
    pub fn rewrite(&mut self, at: At, member_id: u64) {
        let meta = &mut self.tables.meta;
        meta.revision = at.revision();
        meta.reservations.clear();
        self.note_members([member_id]);
        let running: Vec<u64> = self.index.leases.iter().map(|(_, seq)| *seq).collect();
        for seq in running {
            self.update(at, seq, |row| row.past_mut().phase = Phase::Available);
        }
    }
}
