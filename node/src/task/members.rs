//! Member numbers are given through the log, so one number is never given twice (I4).

use super::command::{Rejection, ReserveMembers};
use super::state::State;
use super::tables::Reservation;
use crate::limits::{RESERVATION_MEMBERS_MAX, RESERVATIONS_MAX};

impl State {
    /// Every id of a configuration counts as given: founders were never reserved, and a member that was
    /// removed is in no later configuration.
    pub fn note_members(&mut self, ids: impl IntoIterator<Item = u64>) {
        let given = &mut self.tables.meta.members_reserved_to;
        *given = ids.into_iter().fold(*given, u64::max);
    }

    pub(super) fn reserve_members(
        &mut self,
        reserve: ReserveMembers,
    ) -> Result<Vec<u64>, Rejection> {
        let meta = &mut self.tables.meta;
        if let Some(earlier) = meta
            .reservations
            .iter()
            .find(|r| r.operation_id == reserve.operation_id)
        {
            return Ok(earlier.members.clone());
        }
        if reserve.count > RESERVATION_MEMBERS_MAX {
            return Err(Rejection::Full {
                bound: format!("{RESERVATION_MEMBERS_MAX} members in one reservation"),
            });
        }
        let above = meta.members_reserved_to.max(reserve.above);
        let Some(last) = above.checked_add(u64::from(reserve.count)) else {
            return Err(Rejection::Full {
                bound: format!("member numbers up to {}", u64::MAX),
            });
        };
        let members: Vec<u64> = (above + 1..=last).collect();
        meta.members_reserved_to = last;
        if meta.reservations.len() == RESERVATIONS_MAX {
            meta.reservations.remove(0);
        }
        meta.reservations.push(Reservation {
            operation_id: reserve.operation_id,
            members: members.clone(),
        });
        Ok(members)
    }
}
