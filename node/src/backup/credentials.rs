//! Where the rights to a bucket come from: files of a Secret, the process's environment, or the pod's own
//! identity. A value never shows in a log, an error or a debug print.

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::Error;
use crate::limits::{BACKUP_CREDENTIAL_BYTES_MAX, NAME_CHARS_MAX};

/// Names of files and of environment variables: those that the providers' own tools know.
pub const S3_KEYS: &[&str] = &[
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
];
pub const GCS_KEYS: &[&str] = &["GOOGLE_SERVICE_ACCOUNT_KEY"];
pub const AZURE_KEYS: &[&str] = &[
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
];

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The environment and the pod's identity, as the provider's own tools find them.
    Environment,
    /// One folder, a file for each key.
    Folder(PathBuf),
}

/// A value that is read and handed on, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Credentials {
    /// The folder of this name below the member's folder of credentials; without a name the pod's identity.
    pub fn referred(dir: Option<&Path>, reference: &str) -> Result<Credentials, Error> {
        if reference.is_empty() {
            return Ok(Credentials::Environment);
        }
        let is_ours = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if reference.len() > NAME_CHARS_MAX || !reference.bytes().all(is_ours) {
            let bound =
                format!("must be at most {NAME_CHARS_MAX} lower-case letters, digits and hyphens");
            return Err(Error::invalid("credentials", bound));
        }
        let dir = dir.ok_or_else(|| {
            Error::invalid(
                "credentials",
                "must be empty: the member was started without backup-credentials-dir",
            )
        })?;
        Ok(Credentials::Folder(dir.join(reference)))
    }

    /// The values of those keys that are there; none from the environment, which is left to the provider.
    pub async fn read(&self, keys: &[&'static str]) -> Result<Vec<(&'static str, Secret)>, Error> {
        let Credentials::Folder(folder) = self else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for key in keys {
            if let Some(secret) = read_file(&folder.join(key), key).await? {
                found.push((*key, secret));
            }
        }
        if found.is_empty() {
            let reason = format!("holds none of the files {}", keys.join(", "));
            return Err(Error::invalid("credentials", reason));
        }
        Ok(found)
    }
}

async fn read_file(path: &Path, key: &str) -> Result<Option<Secret>, Error> {
    let unreadable =
        |error: std::io::Error| Error::invalid("credentials", format!("file {key}: {error}"));
    let bytes = match tokio::fs::metadata(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(unreadable)?.len(),
    };
    if bytes > BACKUP_CREDENTIAL_BYTES_MAX {
        let bound = format!(
            "file {key} must be at most {BACKUP_CREDENTIAL_BYTES_MAX} bytes, and has {bytes}"
        );
        return Err(Error::invalid("credentials", bound));
    }
    let text = tokio::fs::read_to_string(path).await.map_err(unreadable)?;
    Ok(Some(Secret(text.trim().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reference_stays_in_its_folder_and_a_secret_is_never_shown() {
        let dir = tempfile::tempdir().expect("a folder");
        for bad in ["..", "a/b", "/etc", "A"] {
            assert!(
                Credentials::referred(Some(dir.path()), bad).is_err(),
                "{bad}"
            );
        }
        assert!(Credentials::referred(None, "s3").is_err());
        let folder = dir.path().join("s3");
        std::fs::create_dir(&folder).expect("made");
        let credentials = Credentials::referred(Some(dir.path()), "s3").expect("a reference");
        assert!(credentials.read(S3_KEYS).await.is_err(), "an empty folder");
        std::fs::write(folder.join("AWS_SECRET_ACCESS_KEY"), "very secret\n").expect("written");
        let read = credentials.read(S3_KEYS).await.expect("read");
        assert_eq!(read[0].1.reveal(), "very secret");
        assert!(!format!("{read:?}").contains("very"));
    }
}
