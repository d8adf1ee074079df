//! To whom the operator listens.

mod world;

use operator::observe::streams;
use world::{World, m};

#[test]
fn a_leader_speaks_for_all_but_those_that_it_cannot_know_of() {
    let world = World::at_rest(3);
    let (cluster, mut observed) = world.look().expect("there is a cluster");
    let wanted = |observed: &_, cluster: &_| -> Vec<_> {
        streams::wanted(observed, cluster).into_keys().collect()
    };
    assert_eq!(wanted(&observed, &cluster), [m(1)]);
    // One that is not Ready may be fenced, and this process has never heard it.
    let pod = observed.pods.values_mut().find(|pod| pod.member == m(2));
    pod.expect("it has a pod").ready = false;
    observed.members.remove(&m(2));
    assert_eq!(wanted(&observed, &cluster), [m(1), m(2)]);
    let mut fenced = cluster;
    fenced.spec.fenced = vec![m(3)];
    assert_eq!(wanted(&observed, &fenced), [m(1), m(2), m(3)]);
}
