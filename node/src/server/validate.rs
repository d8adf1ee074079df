//! The bounds of single fields. Each error names the field and its bound.

use std::fmt;

use bytes::Bytes;

use super::error::Problem;
use crate::limits::{LEASE_MS_MAX, LEASE_MS_MIN};
use crate::task::id::{Name, TaskId};

/// A field's place in a request, rendered only when there is an error to tell.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    item: Option<(&'static str, usize)>,
    name: &'static str,
}

impl Field {
    pub fn named(name: &'static str) -> Field {
        Field { item: None, name }
    }

    /// The same place with another name: a neighbour in the same item.
    pub fn beside(self, name: &'static str) -> Field {
        Field { name, ..self }
    }

    /// A field of an item of a list, or the item itself when `name` is empty.
    pub fn of_item(list: &'static str, index: usize, name: &'static str) -> Field {
        Field {
            item: Some((list, index)),
            name,
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.item {
            None => f.write_str(self.name),
            Some((list, index)) if self.name.is_empty() => write!(f, "{list}[{index}]"),
            Some((list, index)) => write!(f, "{list}[{index}].{}", self.name),
        }
    }
}

pub fn invalid(field: Field, bound: impl Into<String>) -> Problem {
    Problem::field(field.to_string(), bound)
}

pub fn name(field: Field, text: &str) -> Result<Name, Problem> {
    Name::parse(text).map_err(|malformed| invalid(field, malformed.0))
}

pub fn task_id(field: Field, text: &str) -> Result<TaskId, Problem> {
    TaskId::parse(text).map_err(|malformed| invalid(field, malformed.0))
}

/// Free text of one line; may be empty.
pub fn text(field: Field, text: String, bytes_max: usize) -> Result<String, Problem> {
    if text.len() <= bytes_max && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    Err(invalid(
        field,
        format!("must be at most {bytes_max} bytes, none a control character"),
    ))
}

pub fn bytes(field: Field, bytes: Bytes, bytes_max: usize) -> Result<Bytes, Problem> {
    fits(field, bytes.len(), bytes_max)?;
    Ok(bytes)
}

pub fn fits(field: Field, bytes: usize, bytes_max: usize) -> Result<(), Problem> {
    if bytes <= bytes_max {
        return Ok(());
    }
    Err(Problem::too_large(
        field.to_string(),
        format!("must be at most {bytes_max} bytes, and has {bytes}"),
    ))
}

/// The number of items in a batch.
pub fn items(field: Field, items: usize, items_max: usize) -> Result<(), Problem> {
    match items {
        0 => Err(invalid(field, "must not be empty")),
        _ if items > items_max => {
            let bound = format!("must be at most {items_max} items, and has {items}");
            Err(Problem::too_large(field.to_string(), bound))
        }
        _ => Ok(()),
    }
}

pub fn at_most(field: Field, value: u64, max: u64) -> Result<u64, Problem> {
    if value <= max {
        return Ok(value);
    }
    Err(invalid(
        field,
        format!("must be 0 to {max}, and is {value}"),
    ))
}

/// A lease's length; 0 leaves the choice to whom it is passed on.
pub fn lease_ms(field: Field, value: u64) -> Result<u64, Problem> {
    if value == 0 || (LEASE_MS_MIN..=LEASE_MS_MAX).contains(&value) {
        return Ok(value);
    }
    Err(invalid(
        field,
        format!("must be {LEASE_MS_MIN} to {LEASE_MS_MAX}, or 0 for the default, and is {value}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::error::Case;

    #[test]
    fn a_field_is_named_by_its_place() {
        assert_eq!(Field::named("queue").to_string(), "queue");
        assert_eq!(Field::of_item("tasks", 3, "id").to_string(), "tasks[3].id");
        assert_eq!(Field::of_item("queues", 0, "").to_string(), "queues[0]");
        assert_eq!(
            Field::of_item("tasks", 3, "id").beside("kind").to_string(),
            "tasks[3].kind"
        );
    }

    #[test]
    fn bounds_are_kept_at_their_edges() {
        let field = Field::named("f");
        assert!(text(field, "é".repeat(2), 4).is_ok());
        assert!(
            text(field, "é".repeat(3), 4).is_err(),
            "bytes count, not characters"
        );
        assert!(text(field, "a\nb".into(), 4).is_err());
        assert!(bytes(field, Bytes::from_static(b"1234"), 4).is_ok());
        assert_eq!(
            bytes(field, Bytes::from_static(b"12345"), 4)
                .unwrap_err()
                .case,
            Case::TooLarge
        );
        assert_eq!(items(field, 0, 4).unwrap_err().case, Case::InvalidField);
        assert_eq!(items(field, 5, 4).unwrap_err().case, Case::TooLarge);
        assert!(lease_ms(field, 0).is_ok() && lease_ms(field, LEASE_MS_MIN).is_ok());
        assert!(lease_ms(field, 1).is_err() && lease_ms(field, LEASE_MS_MAX + 1).is_err());
        assert_eq!(
            at_most(field, 5, 4).unwrap_err().detail,
            "f must be 0 to 4, and is 5"
        );
    }
}
