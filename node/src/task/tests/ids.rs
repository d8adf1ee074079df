//! Ids: their text comes back as it was, whatever form it is kept in, and hashes never decide which is which.

use std::collections::BTreeMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::super::ids::Ids;
use super::*;

const UUID: &str = "018bcfe5-6800-7abc-9def-0123456789ab";

#[test]
fn an_id_keeps_its_exact_text_also_when_it_looks_like_a_uuid() {
    let upper = UUID.to_uppercase();
    let texts = [
        UUID,
        &upper,
        &UUID.replace('a', "A"),
        &UUID.replace('-', ""),
        &UUID[1..],
        &format!("{UUID}0"),
        &UUID.replace("-7abc-9", "7-abc9-"),
        &UUID.replace('f', "g"),
        &UUID.replace('-', "."),
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "t1",
        &"x".repeat(128),
    ];
    for text in texts {
        let bytes = postcard::to_stdvec(text).expect("a text");
        assert_eq!(id(text).to_string(), text);
        assert_eq!(postcard::to_stdvec(&id(text)).expect("a text"), bytes);
        assert_eq!(postcard::from_bytes::<TaskId>(&bytes), Ok(id(text)));
        for other in texts {
            assert_eq!(id(text) == id(other), text == other, "{text} {other}");
        }
    }
}

#[test]
fn the_age_of_a_uuid_is_told_in_either_case_and_of_nothing_else() {
    let mut world = World::new();
    world.wall_time_ms = START_MS + 30 * 86_400_000;
    let mut is_too_old = |text: &str| {
        let created = world.create("q", vec![task(text)]).remove(0);
        match created {
            Err(Rejection::IdTooOld { .. }) => true,
            Ok(_) => false,
            other => panic!("{other:?}"),
        }
    };
    assert!(is_too_old(UUID));
    assert!(is_too_old(&UUID.to_uppercase()));
    assert!(!is_too_old(&UUID.replace("-7", "-4")), "another version");
    assert!(!is_too_old(&UUID.replace("-9", "-c")), "another variant");
    assert!(!is_too_old(&UUID.replace('-', "")), "no hyphens");
}

#[test]
fn tasks_whose_ids_have_the_same_hash_are_told_apart() {
    #[derive(Default)]
    struct Same;
    impl Hasher for Same {
        fn finish(&self) -> u64 {
            7
        }
        fn write(&mut self, _: &[u8]) {}
    }
    let mut ids = Ids::<BuildHasherDefault<Same>>::default();
    let mut kept = BTreeMap::new();
    for seq in 1..=200u64 {
        let id = id(&format!("t{seq}"));
        ids.insert(0, &id, seq);
        kept.insert(seq, id);
    }
    let find = |ids: &Ids<_>, kept: &BTreeMap<u64, TaskId>, wanted: &TaskId| {
        ids.find(0, wanted, |seq| (kept[&seq] == *wanted).then_some(seq))
    };
    for seq in (1..=200).step_by(3) {
        let gone = kept[&seq].clone();
        ids.remove(0, &gone, seq);
        kept.remove(&seq);
        assert_eq!(find(&ids, &kept, &gone), None);
    }
    for (seq, id) in &kept {
        assert_eq!(find(&ids, &kept, id), Some(*seq));
    }
    assert_eq!(find(&ids, &kept, &id("none")), None);
    assert_eq!(ids.len(), kept.len());
}

/// Slots keep 24 bits of a hash, so among so many some are alike.
#[test]
fn every_one_of_many_tasks_is_found_by_its_id_in_its_namespace() {
    let mut world = World::new();
    for first in (0..20_000).step_by(1_000) {
        let tasks = || (first..first + 1_000).map(|n| task(&format!("t{n}")));
        world.create("q", tasks().collect());
        for (namespace, kind) in [("ns", "mail"), ("other", "call")] {
            let create = Command::Create(Create {
                namespace: name(namespace),
                queue: name("q"),
                tasks: tasks()
                    .map(|task| NewTask {
                        kind: kind.into(),
                        ..task
                    })
                    .collect(),
            });
            let created = match world.apply(vec![create]).remove(0) {
                Outcome::Created(created) => created,
                other => panic!("{other:?}"),
            };
            let existed = created.into_iter().map(|one| one.expect("room").existed);
            assert!(existed.eq(vec![namespace == "ns"; 1_000]));
        }
    }
    for n in 0..20_000 {
        let text = format!("t{n}");
        let other = world.state.get(&name("other"), &id(&text)).expect("there");
        assert_eq!((other.id, &*other.kind), (id(&text), "call"));
        assert_eq!(world.get(&text).expect("there").kind, "mail");
    }
    assert_eq!(world.get("t20000"), None);
}
