//! Names and ids, validated once, where they enter.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

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

/// The id of a task, unique in its namespace: `[A-Za-z0-9._~-]{1,128}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(Arc<str>);

impl TaskId {
    pub fn parse(text: &str) -> Result<TaskId, Malformed> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
        if (1..=TASK_ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(TaskId(text.into()));
        }
        Err(Malformed(format!(
            "must be 1 to {TASK_ID_CHARS_MAX} characters of A-Z, a-z, 0-9, '.', '_', '~' and '-'"
        )))
    }

    pub fn as_str(&self) -> &str {
        &self.0
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

macro_rules! shows_its_text {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
shows_its_text!(Name, TaskId);
