//! The persisted form of a task row: what is hashed and written to snapshots.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::id::TaskId;
use super::row::{LastSettle, Past, Phase, TaskRow, Texts};

/// Persisted as postcard: fields are only ever appended.
#[derive(Serialize, Deserialize)]
struct Written<'a> {
    seq: u64,
    queue: u32,
    id: TaskId,
    kind: Cow<'a, str>,
    content_type: Cow<'a, str>,
    priority: u8,
    not_before_ms: u64,
    lease_ms: u64,
    attempts_max: u32,
    payload_bytes: u32,
    payload_hash: [u8; 16],
    created_ms: u64,
    phase: Cow<'a, Phase>,
    failures: u32,
    abandonments: u32,
    token: u64,
    revision: u64,
    last_settle: Option<LastSettle>,
    error: Option<Cow<'a, str>>,
}

impl Serialize for TaskRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let past = self.past();
        let written = Written {
            seq: self.seq,
            queue: self.queue,
            id: self.id.clone(),
            kind: Cow::Borrowed(&self.texts.kind),
            content_type: Cow::Borrowed(&self.texts.content_type),
            priority: self.priority,
            not_before_ms: self.not_before_ms,
            lease_ms: self.lease_ms.into(),
            attempts_max: self.attempts_max.into(),
            payload_bytes: self.payload_bytes,
            payload_hash: self.payload_hash,
            created_ms: self.created_ms,
            phase: Cow::Borrowed(&past.phase),
            failures: past.failures,
            abandonments: past.abandonments,
            token: past.token,
            revision: self.revision,
            last_settle: past.last_settle,
            error: past.error.as_deref().map(Cow::Borrowed),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TaskRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TaskRow, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let past = Past {
            phase: written.phase.into_owned(),
            failures: written.failures,
            abandonments: written.abandonments,
            token: written.token,
            last_settle: written.last_settle,
            error: written.error.map(|text| text.into()),
        };
        let texts = Texts {
            kind: written.kind.into(),
            content_type: written.content_type.into(),
        };
        let mut row = TaskRow {
            seq: written.seq,
            revision: written.revision,
            created_ms: written.created_ms,
            not_before_ms: written.not_before_ms,
            payload_hash: written.payload_hash,
            hash: [0; 16],
            id: written.id,
            texts: Arc::new(texts),
            past: None,
            lease_ms: written.lease_ms.try_into().map_err(de::Error::custom)?,
            queue: written.queue,
            payload_bytes: written.payload_bytes,
            attempts_max: written.attempts_max.try_into().map_err(de::Error::custom)?,
            priority: written.priority,
            scheduled: false,
        };
        row.set_past(past);
        Ok(row)
    }
}

/// Bytes as one piece; serde's own way is one byte after the other.
pub(super) mod whole {
    use super::*;

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[u8]>, D::Error> {
        Ok(bytes::Bytes::deserialize(deserializer)?.to_vec().into())
    }
}
