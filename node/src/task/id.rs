//! Names and ids, validated once, where they enter.

use std::fmt;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::limits::{NAME_CHARS_MAX, TASK_ID_CHARS_MAX};

/// Why a text is not a name or id: the field's rule in words a person understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A namespace or queue: `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name(Arc<str>);

impl Name {
    pub fn parse(text: &str) -> Result<Name, Malformed> {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let edge = |b: Option<&u8>| b.is_some_and(|b| *b != b'-');
        let bytes = text.as_bytes();
        let fits = (1..=NAME_CHARS_MAX).contains(&bytes.len());
        if fits && bytes.iter().all(|b| inner(*b)) && edge(bytes.first()) && edge(bytes.last()) {
            return Ok(Name(text.into()));
        }
        Err(Malformed(format!(
            "must be 1 to {NAME_CHARS_MAX} characters of a-z, 0-9 and '-', not starting or ending with '-'"
        )))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a task, unique in its namespace: `[A-Za-z0-9._~-]{1,128}`. Shown and persisted as its text.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TaskId(Kept);

/// Millions of ids are in memory and most are UUIDs. Each text has one form, so that equal ids are equal.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Kept {
    /// Its text is the lower-case one with hyphens.
    Uuid(Uuid),
    Text(Arc<str>),
}

impl TaskId {
    pub fn parse(text: &str) -> Result<TaskId, Malformed> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
        if (1..=TASK_ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(TaskId::unchecked(text));
        }
        Err(Malformed(format!(
            "must be 1 to {TASK_ID_CHARS_MAX} characters of A-Z, a-z, 0-9, '.', '_', '~' and '-'"
        )))
    }

    fn unchecked(text: &str) -> TaskId {
        let canonical = |uuid: &Uuid| *hyphenated(uuid, &mut [0; Hyphenated::LENGTH]) == *text;
        TaskId(match Uuid::try_parse(text).ok().filter(canonical) {
            Some(uuid) => Kept::Uuid(uuid),
            None => Kept::Text(text.into()),
        })
    }

    /// The UUID that the id is with hyphens, in lower or upper case.
    pub fn uuid(&self) -> Option<Uuid> {
        match &self.0 {
            Kept::Uuid(uuid) => Some(*uuid),
            Kept::Text(text) if text.len() == Hyphenated::LENGTH => Uuid::try_parse(text).ok(),
            Kept::Text(_) => None,
        }
    }

    fn with_text<T>(&self, then: impl FnOnce(&str) -> T) -> T {
        match &self.0 {
            Kept::Uuid(uuid) => then(hyphenated(uuid, &mut [0; Hyphenated::LENGTH])),
            Kept::Text(text) => then(text),
        }
    }
}

fn hyphenated<'a>(uuid: &Uuid, buffer: &'a mut [u8; Hyphenated::LENGTH]) -> &'a str {
    uuid.hyphenated().encode_lower(buffer)
}

impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for TaskId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TaskId, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = TaskId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the id of a task")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TaskId, E> {
                Ok(TaskId::unchecked(text))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| fmt::Debug::fmt(text, f))
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

/// The fencing token of a lease: 16 bits of incarnation, 48 bits of log index. It only grows, also
/// across a disaster restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u64);

impl Token {
    pub fn new(incarnation: u16, index: u64) -> Token {
        Token((u64::from(incarnation) << 48) | (index & ((1 << 48) - 1)))
    }
}
