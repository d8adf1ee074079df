//! Certificates are swapped whole or not at all.

use std::fs;

use super::rig::{CLUSTER, id};
use crate::raft::certs::Authority;
use crate::raft::transport::tls::{
    CA_FILE, CERTIFICATE_FILE, KEY_FILE, Reloaded, TlsError, TlsStore, member_name, operator_name,
    verify_name,
};

#[test]
fn names_are_bound_to_member_incarnation_and_cluster() {
    assert_eq!(member_name("c", (7 << 32) | 3), "m3.i7.c.taskstore");
    assert_eq!(operator_name("c"), "operator.c.taskstore");
}

#[test]
fn a_reload_takes_a_whole_new_set_and_keeps_the_old_one_else() {
    let authority = Authority::new(CLUSTER).unwrap();
    let dir = tempfile::tempdir().unwrap();
    authority
        .member(id(1))
        .unwrap()
        .write_to(dir.path())
        .unwrap();
    let store = TlsStore::load(dir.path()).unwrap();
    let first = store.current().certificate_sha256.clone();
    assert_eq!(first.len(), 64);
    assert_eq!(store.reload(dir.path()).unwrap(), Reloaded::Unchanged);

    let renewed = authority.member(id(1)).unwrap();
    fs::write(dir.path().join(CERTIFICATE_FILE), &renewed.certificate_pem).unwrap();
    assert!(
        matches!(store.reload(dir.path()), Err(TlsError::Refused(_))),
        "the key is still the old one"
    );
    assert_eq!(store.current().certificate_sha256, first);

    fs::write(dir.path().join(KEY_FILE), &renewed.key_pem[..40]).unwrap();
    assert!(
        matches!(store.reload(dir.path()), Err(TlsError::File { .. })),
        "half a key"
    );
    assert_eq!(store.current().certificate_sha256, first);

    fs::write(dir.path().join(KEY_FILE), &renewed.key_pem).unwrap();
    assert_eq!(store.reload(dir.path()).unwrap(), Reloaded::Changed);
    assert_ne!(store.current().certificate_sha256, first);

    fs::remove_file(dir.path().join(CA_FILE)).unwrap();
    assert!(matches!(
        store.reload(dir.path()),
        Err(TlsError::File { .. })
    ));
}

#[test]
fn a_certificate_that_its_own_bundle_does_not_vouch_for_is_refused() {
    let (ours, theirs) = (
        Authority::new(CLUSTER).unwrap(),
        Authority::new(CLUSTER).unwrap(),
    );
    let dir = tempfile::tempdir().unwrap();
    let mut issued = ours.member(id(1)).unwrap();
    issued.ca_pem = theirs.ca_pem();
    issued.write_to(dir.path()).unwrap();
    assert!(matches!(
        TlsStore::load(dir.path()),
        Err(TlsError::Refused(_))
    ));

    issued.ca_pem = format!("{}{}", theirs.ca_pem(), ours.ca_pem());
    issued.write_to(dir.path()).unwrap();
    let store = TlsStore::load(dir.path()).expect("old and new CA overlap in a rotation");
    assert_eq!(store.current().bundle_sha256.len(), 2);
}

#[test]
fn a_leaf_is_valid_for_its_own_name_only() {
    let authority = Authority::new(CLUSTER).unwrap();
    let dir = tempfile::tempdir().unwrap();
    authority
        .member(id(2))
        .unwrap()
        .write_to(dir.path())
        .unwrap();
    let material = TlsStore::load(dir.path()).unwrap().current();
    let presented = Some(material.certificates());
    assert!(verify_name(presented, &member_name(CLUSTER, id(2))).is_ok());
    assert!(verify_name(presented, &member_name(CLUSTER, id(3))).is_err());
    assert!(verify_name(presented, &member_name(CLUSTER, (2 << 32) | 2)).is_err());
    assert!(verify_name(presented, &member_name("other", id(2))).is_err());
    assert!(verify_name(presented, &operator_name(CLUSTER)).is_err());
    assert!(verify_name(None, &member_name(CLUSTER, id(2))).is_err());
}
