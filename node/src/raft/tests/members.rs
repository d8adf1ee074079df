//! Guarded membership changes.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;

use super::cluster::{Cluster, id};
use crate::raft::membership::{Change, ChangeError, Changed, Guard, change};
use crate::storage::types::{LogId, MemberName, Membership, StoredMembership};

fn uniform(changed: Changed) -> StoredMembership {
    match changed {
        Changed::Uniform(stored) => stored,
        Changed::Joint(stored) => panic!("still joint: {stored}"),
    }
}

fn voters(numbers: impl IntoIterator<Item = u64>) -> Change {
    Change::SetVoters(numbers.into_iter().map(id).collect())
}

fn voters_of(stored: &StoredMembership) -> Vec<u64> {
    stored
        .membership()
        .voter_ids()
        .map(|id| id & 0xffff_ffff)
        .collect()
}

fn members_of(stored: &StoredMembership) -> Vec<u64> {
    stored
        .membership()
        .nodes()
        .map(|(id, _)| id & 0xffff_ffff)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_become_five_in_one_joint_change_and_three_again() {
    let mut cluster = Cluster::start(3).await;
    cluster.add(4).await;
    cluster.add(5).await;
    let leader = cluster.leader().await;
    let raft = &cluster.member(leader).raft;

    let learners = BTreeMap::from([(id(4), cluster.name(4)), (id(5), cluster.name(5))]);
    let before = cluster.guard(leader);
    let added = uniform(
        change(raft, Change::AddLearners(learners.clone()), before)
            .await
            .unwrap(),
    );
    assert_eq!(
        (voters_of(&added), members_of(&added)),
        (vec![1, 2, 3], vec![1, 2, 3, 4, 5])
    );

    let at = Guard {
        membership: *added.log_id(),
        ..before
    };
    let again = uniform(
        change(raft, Change::AddLearners(learners), at)
            .await
            .unwrap(),
    );
    assert_eq!(
        again.log_id(),
        added.log_id(),
        "what is done already writes nothing"
    );

    let five = uniform(change(raft, voters(1..=5), at).await.unwrap());
    assert_eq!(voters_of(&five), [1, 2, 3, 4, 5]);
    let (from, to) = (added.log_id().unwrap().index, five.log_id().unwrap().index);
    assert_eq!(to - from, 2, "one joint and one uniform entry");

    let keep: BTreeSet<u64> = [leader, 4, 5].into();
    let at = Guard {
        membership: *five.log_id(),
        ..before
    };
    let three = uniform(change(raft, voters(keep.clone()), at).await.unwrap());
    assert_eq!(voters_of(&three), keep.iter().copied().collect::<Vec<_>>());
    assert_eq!(
        members_of(&three),
        keep.into_iter().collect::<Vec<_>>(),
        "who went is no member any more"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_decided_on_an_older_world_changes_nothing() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let raft = &cluster.member(leader).raft;
    let learner =
        |n: u64| Change::AddLearners(BTreeMap::from([(id(n), MemberName("127.0.0.1:1".into()))]));
    let guard = cluster.guard(leader);
    let now = uniform(change(raft, learner(4), guard).await.unwrap());

    for outdated in [
        guard,
        Guard {
            membership: *now.log_id(),
            term: guard.term + 1,
        },
    ] {
        for attempt in [
            learner(5),
            voters([1, 2]),
            Change::RemoveLearners([id(4)].into()),
        ] {
            let outcome = change(raft, attempt.clone(), outdated).await;
            assert!(
                matches!(outcome, Err(ChangeError::Outdated(_))),
                "{attempt:?}: {outcome:?}"
            );
        }
    }
    let gone = change(raft, voters([1, 2, 9]), guard).await;
    assert!(
        matches!(gone, Err(ChangeError::Outdated(_))),
        "it may have made sense then: {gone:?}"
    );
    assert_eq!(cluster.guard(leader).membership, *now.log_id());

    let follower = (1..=3).find(|n| *n != leader).unwrap();
    let at = Guard {
        membership: *now.log_id(),
        ..guard
    };
    let outcome = change(&cluster.member(follower).raft, learner(5), at).await;
    assert!(
        matches!(outcome, Err(ChangeError::NotLeader { .. })),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_makes_no_sense_is_refused_in_plain_words() {
    let cluster = Cluster::start(1).await;
    let raft = &cluster.member(1).raft;
    let guard = cluster.guard(1);
    let renamed = BTreeMap::from([(id(1), MemberName("elsewhere".into()))]);
    for attempt in [
        voters([]),
        voters([1, 9]),
        Change::RemoveLearners([id(1)].into()),
        Change::AddLearners(renamed),
    ] {
        let outcome = change(raft, attempt.clone(), guard).await;
        assert!(
            matches!(outcome, Err(ChangeError::Refused(_))),
            "{attempt:?}: {outcome:?}"
        );
    }
    let learner = BTreeMap::from([(id(2), MemberName("127.0.0.1:1".into()))]);
    let added = uniform(
        change(raft, Change::AddLearners(learner), guard)
            .await
            .unwrap(),
    );
    let at = Guard {
        membership: *added.log_id(),
        ..guard
    };
    let removed = uniform(
        change(raft, Change::RemoveLearners([id(2)].into()), at)
            .await
            .unwrap(),
    );
    assert_eq!(members_of(&removed), [1]);
}

/// As a leader leaves it that dies between the two halves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lingering_joint_configuration_is_finished_by_the_same_change() {
    let mut cluster = Cluster::start(3).await;
    cluster.add(4).await;
    let leader = cluster.leader().await;
    let raft = &cluster.member(leader).raft;
    let guard = cluster.guard(leader);
    let learner = BTreeMap::from([(id(4), cluster.name(4))]);
    let added = uniform(
        change(raft, Change::AddLearners(learner), guard)
            .await
            .unwrap(),
    );

    let old: BTreeSet<u64> = (1..=3).map(id).collect();
    let new: BTreeSet<u64> = [leader, 4]
        .into_iter()
        .chain((1..=3).filter(|n| *n != leader).take(1))
        .map(id)
        .collect();
    let nodes: BTreeMap<u64, MemberName> = added
        .membership()
        .nodes()
        .map(|(id, name)| (*id, name.clone()))
        .collect();
    let joint = Membership::new(vec![old, new.clone()], nodes).unwrap();
    let written = raft
        .append_membership(joint, EntryPayload::Blank, [])
        .await
        .unwrap();

    let outdated = Guard {
        membership: *added.log_id(),
        ..guard
    };
    let outcome = change(raft, Change::SetVoters(new.clone()), outdated).await;
    assert!(
        matches!(outcome, Ok(Changed::Joint(_))),
        "it says that it is joint: {outcome:?}"
    );

    let at: Option<LogId> = Some(written.log_id);
    let done = uniform(
        change(
            raft,
            Change::SetVoters(new.clone()),
            Guard {
                membership: at,
                ..guard
            },
        )
        .await
        .unwrap(),
    );
    assert_eq!(done.membership().voter_ids().collect::<BTreeSet<_>>(), new);
    assert_eq!(done.membership().nodes().count(), 3);
}
