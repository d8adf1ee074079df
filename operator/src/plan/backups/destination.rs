//! Before anything is written a member proves that it may write, read, create once, list and delete: once for
//! each destination, and again while it may not or after a backup has failed for good.

use jiff::{SignedDuration, Timestamp};

use super::{Scope, able, failures, nobody, open, retry_at};
use crate::observe::backups::Heard;
use crate::plan::{Action, Draft};

/// Nothing tells us that a right was granted.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// How the destination stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Accepted,
    /// No member has said anything about it.
    Unchecked(String),
    /// Until somebody changes it, or the rights.
    Refused {
        words: String,
        at: Timestamp,
    },
    Unavailable(String),
}

pub fn plan(draft: &mut Draft<'_>, scope: &Scope<'_>) -> Standing {
    if draft.plan.progress.backup.accepted.as_ref() == Some(&scope.about) {
        return Standing::Accepted;
    }
    let observed = draft.observed;
    let known = observed.backups.orders.check.as_ref();
    let Some(order) = known.filter(|order| order.about == scope.about) else {
        return look(draft, scope, 0)
            .unwrap_or_else(|| Standing::Unchecked("a member looks at the destination".into()));
    };
    let (standing, next, failures) = match &order.heard {
        Heard::Nothing => {
            let words = "a member looks at the destination".into();
            return Standing::Unchecked(words);
        }
        Heard::News(verdict) => match &verdict.lacks {
            // A right that failed a backup since was looked at before that.
            None if is_older(draft, order.given) => {
                let words = "a member looks at the destination again".into();
                (Standing::Unchecked(words), draft.now, 0)
            }
            None => {
                draft.plan.progress.backup.accepted = Some(scope.about.clone());
                return Standing::Accepted;
            }
            Some((right, why)) => {
                let refused = Standing::Refused {
                    words: format!("backups need the right to {right}: {why}"),
                    at: verdict.at,
                };
                (refused, verdict.at + LOOK_AGAIN, 0)
            }
        },
        Heard::Failed(failure) => {
            let words = failure.words.clone();
            let failures = failures(order, failure);
            match failure.is_final {
                true => {
                    let at = failure.at;
                    (Standing::Refused { words, at }, at + LOOK_AGAIN, 0)
                }
                false => {
                    let next = retry_at(failure, failures);
                    (Standing::Unavailable(words), next, failures)
                }
            }
        }
    };
    // Somebody who asks for a backup now may have put it right just before.
    let is_asked = open(draft)
        .iter()
        .any(|backup| backup.created > order.given);
    if next <= draft.now || is_asked && !matches!(standing, Standing::Unavailable(_)) {
        look(draft, scope, failures);
    } else {
        draft.wake_at(next);
    }
    standing
}

/// Whether a backup has failed for good after the destination was looked at.
fn is_older(draft: &Draft<'_>, looked: Timestamp) -> bool {
    let order = draft.observed.backups.orders.backup.as_ref();
    let failure = order.and_then(|order| order.failure());
    failure.is_some_and(|failure| failure.is_final && failure.at >= looked)
}

/// What to say when nobody can look.
fn look(draft: &mut Draft<'_>, scope: &Scope<'_>, failures: u32) -> Option<Standing> {
    let able = able(draft, scope);
    let Some(member) = chosen(&able, failures) else {
        return Some(Standing::Unchecked(nobody(draft).into()));
    };
    draft.act(Action::CheckDestination {
        member,
        about: scope.about.clone(),
        failures,
    });
    None
}

/// Another one with each failure.
pub fn chosen<T: Copy>(able: &[T], failures: u32) -> Option<T> {
    let at = usize::try_from(failures)
        .unwrap_or(0)
        .checked_rem(able.len())?;
    able.get(at).copied()
}
