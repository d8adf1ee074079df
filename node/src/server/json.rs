//! The JSON forms of the wire's words. Bytes are base64, tokens and revisions are strings (JavaScript
//! holds 53 bits of a number); unknown members are refused, so that a misspelt one is not ignored.

pub mod answered;
pub mod asked;

use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use taskstore_api::v1;

use super::error::Problem;

/// Reads a request's body. An empty body is an empty object.
pub fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, Problem> {
    let body = if body.is_empty() { b"{}" } else { body };
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(read) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // "?" stands where a name was cut short.
        let known = path != "." && !path.contains('?');
        let field = if known { path } else { "body".to_owned() };
        Problem::field(field, format!("is malformed: {}", error.into_inner()))
    })?;
    json.end()
        .map_err(|error| Problem::field("body", format!("is malformed: {error}")))?;
    Ok(read)
}

/// Takes an object only: serde would also read a struct's members from an array, by position.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// Bytes as base64, standard alphabet with padding.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Base64(pub Bytes);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Base64, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let decoded = STANDARD.decode(text.as_bytes());
        decoded.map(|bytes| Base64(bytes.into())).map_err(|error| {
            serde::de::Error::custom(format_args!(
                "expected base64 of the standard alphabet, padded: {error}"
            ))
        })
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

/// 64 bits as a string of decimal digits.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Wide(pub u64);

impl<'de> Deserialize<'de> for Wide {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Wide, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Wide;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string of decimal digits that fit 64 bits")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Wide, E> {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let value = text.parse().ok().filter(|_| digits);
                value
                    .map(Wide)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

impl Serialize for Wide {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A state as JSON and queries name it: AVAILABLE.
pub fn state_name(state: i32) -> &'static str {
    v1::TaskState::try_from(state)
        .unwrap_or_default()
        .as_str_name()
        .trim_start_matches("TASK_STATE_")
}

pub fn state_of(name: &str) -> Option<v1::TaskState> {
    v1::TaskState::from_str_name(&format!("TASK_STATE_{name}"))
        .filter(|state| *state != v1::TaskState::Unspecified)
}
