//! The manifest's text: a restore in years to come must read it.

use std::sync::Arc;

use object_store::memory::InMemory;

use super::entries::log;
use super::rig::{bucket_over, cut, lineage, name, order};
use crate::backup::error::Error;
use crate::backup::log::segment::{Head, decode, encode};
use crate::backup::manifest::{Manifest, ManifestRef};
use crate::backup::progress::Noted;
use crate::backup::write::{Order, write};
use crate::storage::snapshot::Position;
use crate::storage::store::position;
use crate::task::tests::START_MS;

const GOLDEN: &str = include_str!("manifest.json");
const SEGMENT: &str = include_str!("segment.hex");

#[tokio::test]
async fn a_manifest_keeps_its_golden_text() {
    let asked = Order {
        previous: Some(ManifestRef {
            name: name("b-0"),
            checksum: "00".repeat(32),
        }),
        ..order("b-1")
    };
    let bucket = bucket_over(Arc::new(InMemory::new()));
    let cut = cut("golden", 0);
    let written = write(&bucket, &cut.handle, &asked, &Noted::default()).await;
    let text = String::from_utf8(written.expect("written").encode()).expect("text");
    assert!(text == GOLDEN, "the manifest now is:\n{text}");
}

#[test]
fn a_later_format_is_refused_by_its_number_and_another_lineage_or_name_by_theirs() {
    let read = |text: &str, lineage: &_, at: &str| {
        Manifest::decode(text.as_bytes(), "m", lineage, &name(at)).map(drop)
    };
    read(GOLDEN, &lineage(), "b-1").expect("good");
    let later = GOLDEN.replacen("\"format\": 1", "\"format\": 2", 1);
    let later = later.replacen("\"name\"", "\"sealed_with\": \"k\", \"name\"", 1);
    let refused = read(&later, &lineage(), "b-1");
    assert!(
        matches!(refused, Err(Error::Newer { found: 2, .. })),
        "{refused:?}"
    );
    let other = crate::backup::layout::Lineage::new("c-1", 2).expect("a lineage");
    assert!(matches!(
        read(GOLDEN, &other, "b-1"),
        Err(Error::Foreign { .. })
    ));
    assert!(matches!(
        read(GOLDEN, &lineage(), "b-2"),
        Err(Error::Damaged { .. })
    ));
}

#[test]
fn no_byte_of_a_manifest_can_change_unseen() {
    let read = |bytes: &[u8]| Manifest::decode(bytes, "m", &lineage(), &name("b-1"));
    for at in 0..GOLDEN.len() {
        for bit in 0..8 {
            let mut bad = GOLDEN.as_bytes().to_vec();
            bad[at] ^= 1 << bit;
            assert!(read(&bad).is_err(), "bit {bit} of byte {at}");
        }
        assert!(read(&GOLDEN.as_bytes()[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_segment_keeps_its_golden_bytes_and_no_byte_can_change_unseen() {
    let mut log = log(9);
    log.entries.truncate(2);
    let head = Head {
        identity: lineage().identity(),
        previous: Some([7; 32]),
        after: Position { term: 0, index: 0 },
        last: position(log.entries[1].log_id),
        entries: 2,
        wall_time_ms: START_MS,
    };
    let encoded = encode(&head, &log.entries);
    let hex: String = encoded
        .bytes
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(hex == SEGMENT.trim(), "the segment now is:\n{hex}");
    let read = |bytes: Vec<u8>| decode(&bytes.into(), "s", &lineage(), 1);
    let whole = read(encoded.bytes.to_vec()).expect("good");
    assert_eq!(
        (whole.head, whole.entries, whole.hash),
        (head, log.entries, encoded.hash)
    );
    for at in 0..encoded.bytes.len() {
        let mut bad = encoded.bytes.to_vec();
        bad[at] ^= 1;
        assert!(read(bad).is_err(), "byte {at}");
        assert!(read(encoded.bytes[..at].to_vec()).is_err(), "cut at {at}");
    }
}
