//! Member numbers: never the same twice.

use super::super::command::{Rejection, ReserveMembers};
use super::*;

fn reserve(
    world: &mut World,
    operation: &str,
    count: u32,
    above: u64,
) -> Result<Vec<u64>, Rejection> {
    let reserve = ReserveMembers {
        operation_id: operation.into(),
        count,
        above,
    };
    match world
        .apply(vec![Command::ReserveMembers(reserve)])
        .remove(0)
    {
        Outcome::Reserved(result) => result,
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_only_grow_and_the_same_operation_gets_the_same() {
    let mut world = World::new();
    assert_eq!(reserve(&mut world, "a", 2, 3), Ok(vec![4, 5]));
    assert_eq!(reserve(&mut world, "b", 1, 0), Ok(vec![6]));
    assert_eq!(reserve(&mut world, "a", 2, 9), Ok(vec![4, 5]));
    assert_eq!(reserve(&mut world, "c", 1, 9), Ok(vec![10]));
    assert!(matches!(
        reserve(&mut world, "d", 65, 0),
        Err(Rejection::Full { .. })
    ));
    assert!(matches!(
        reserve(&mut world, "e", 1, u64::MAX),
        Err(Rejection::Full { .. })
    ));
    world.check();
}

#[test]
fn a_number_that_a_configuration_has_held_is_never_given_again() {
    let mut world = World::new();
    world.state.note_members([3, 5, 4]);
    world.state.note_members([1, 2, 3]);
    assert_eq!(reserve(&mut world, "a", 2, 3), Ok(vec![6, 7]));
    world.check();
}

#[test]
fn the_last_sixty_four_operations_are_remembered() {
    let mut world = World::new();
    for n in 0..65 {
        reserve(&mut world, &format!("o{n}"), 1, 0).expect("reserved");
    }
    assert_eq!(reserve(&mut world, "o1", 1, 0), Ok(vec![2]));
    assert_eq!(
        reserve(&mut world, "o0", 1, 0),
        Ok(vec![66]),
        "forgotten, so new numbers: never old ones"
    );
}
