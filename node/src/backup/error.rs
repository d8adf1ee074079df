//! What can go wrong with a backup, as callers tell cases apart, and which error of a store is which case.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use crate::limits::BACKUP_REASON_CHARS_MAX;

/// What was asked of the store; also the right that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Create,
    List,
    Delete,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::Create => "create",
            Access::List => "list",
            Access::Delete => "delete",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was tried.
    #[error("{field} {reason}")]
    Invalid { field: &'static str, reason: String },
    #[error("no right to {access} {object}: {reason}")]
    Forbidden {
        access: Access,
        object: String,
        reason: String,
    },
    #[error("{object} is not there")]
    Missing { object: String },
    /// Another one is there under this name.
    #[error("{object} is there already: {reason}")]
    Taken { object: String, reason: String },
    #[error("{object} is damaged: {reason}")]
    Damaged { object: String, reason: String },
    #[error("{object} has format {found}, this version knows formats up to {known}")]
    Newer {
        object: String,
        found: u32,
        known: u32,
    },
    #[error("{object} belongs to {found}, not to {expected}")]
    Foreign {
        object: String,
        found: String,
        expected: String,
    },
    /// May work at the next try.
    #[error("cannot {access} {object} now: {reason}")]
    Unavailable {
        access: Access,
        object: String,
        reason: String,
    },
    #[error("the store cannot {access} {object}: {reason}")]
    Unsupported {
        access: Access,
        object: String,
        reason: String,
    },
    /// The member's own disk.
    #[error("local file: {0}")]
    Local(#[from] io::Error),
}

impl Error {
    pub fn invalid(field: &'static str, reason: impl Into<String>) -> Error {
        Error::Invalid {
            field,
            reason: reason.into(),
        }
    }

    pub fn damaged(object: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Damaged {
            object: object.into(),
            reason: reason.into(),
        }
    }

    /// Whether another try ends the same as long as nobody changes what lies in the bucket or what is asked.
    pub fn is_final(&self) -> bool {
        match self {
            // Its files may still come, or be put right.
            Error::Invalid {
                field: "credentials",
                ..
            } => false,
            Error::Unavailable { .. } | Error::Forbidden { .. } | Error::Local(_) => false,
            Error::Invalid { .. }
            | Error::Missing { .. }
            | Error::Taken { .. }
            | Error::Damaged { .. }
            | Error::Newer { .. }
            | Error::Foreign { .. }
            | Error::Unsupported { .. } => true,
        }
    }

    pub fn unavailable(
        access: Access,
        object: impl Into<String>,
        reason: impl fmt::Display,
    ) -> Error {
        Error::Unavailable {
            access,
            object: object.into(),
            reason: shortened(&reason.to_string()),
        }
    }

    /// An error of the store, with the object's full name.
    pub fn of_store(access: Access, object: String, error: &object_store::Error) -> Error {
        use object_store::Error as Store;
        let reason = root_cause(error);
        match error {
            // What is created or listed need not be there: then it is what it would stand in.
            Store::NotFound { .. }
                if matches!(access, Access::Write | Access::Create | Access::List) =>
            {
                let reason = format!("names a bucket or folder that is not there: {reason}");
                Error::invalid("url", reason)
            }
            Store::NotFound { .. } => Error::Missing { object },
            Store::AlreadyExists { .. } => Error::Taken { object, reason },
            Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => Error::Forbidden {
                access,
                object,
                reason,
            },
            Store::NotSupported { .. } | Store::NotImplemented { .. } => Error::Unsupported {
                access,
                object,
                reason,
            },
            error if is_refused_by_folder(error) => Error::Forbidden {
                access,
                object,
                reason,
            },
            _ => Error::Unavailable {
                access,
                object,
                reason,
            },
        }
    }
}

/// A folder has no rights of its own kind: the operating system's word is somewhere in the chain.
fn is_refused_by_folder(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if let Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) = kind {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The error at the bottom says why; those above it say what was asked, which we know. Of an answer in XML
/// the code and the message count: the rest repeats the request, signature and all.
fn root_cause(error: &object_store::Error) -> String {
    let mut root: &(dyn StdError + 'static) = error;
    while let Some(source) = root.source() {
        root = source;
    }
    let text = root.to_string();
    match (element(&text, "Code"), element(&text, "Message")) {
        (Some(code), Some(message)) => shortened(&format!("{code}: {message}")),
        (Some(code), None) => shortened(code),
        _ => shortened(&text),
    }
}

fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

fn shortened(reason: &str) -> String {
    let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(BACKUP_REASON_CHARS_MAX) {
        Some((at, _)) => format!("{} …", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_short_line_and_repeats_no_request() {
        let answer = "403 Forbidden: <?xml?>\n<Error><Code>SignatureDoesNotMatch</Code>\
                      <Message>The signatures\ndiffer.</Message><StringToSign>AWS4</StringToSign></Error>";
        let error = object_store::Error::PermissionDenied {
            path: "a".into(),
            source: answer.into(),
        };
        let shown = Error::of_store(Access::Write, "s3://b/a".into(), &error).to_string();
        let expected = "no right to write s3://b/a: SignatureDoesNotMatch: The signatures differ.";
        assert_eq!(shown, expected);
        assert!(shortened(&"word ".repeat(1_000)).len() <= BACKUP_REASON_CHARS_MAX + " …".len());
    }
}
