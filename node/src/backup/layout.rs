//! Where things stand in a bucket. Pure: names in, names out.

use std::fmt;

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::limits::{BACKUP_CLUSTER_ID_CHARS_MAX, BACKUP_NAME_CHARS_MAX};
use crate::storage::snapshot::SnapshotIdentity;

const MANIFEST: &str = "manifest.json";
const BACKUPS: &str = "backups";

/// One life of a store: everything it ever wrote to a bucket stands in one folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lineage {
    pub cluster_id: String,
    pub incarnation: u16,
}

impl Lineage {
    pub fn new(cluster_id: &str, incarnation: u16) -> Result<Lineage, Error> {
        let fits = (1..=BACKUP_CLUSTER_ID_CHARS_MAX).contains(&cluster_id.len())
            && cluster_id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !fits {
            let bound =
                format!("must be 1 to {BACKUP_CLUSTER_ID_CHARS_MAX} letters, digits and hyphens");
            return Err(Error::invalid("cluster_id", bound));
        }
        if incarnation == 0 {
            return Err(Error::invalid("incarnation", "must be at least 1"));
        }
        Ok(Lineage {
            cluster_id: cluster_id.into(),
            incarnation,
        })
    }

    pub fn of(identity: &SnapshotIdentity) -> Result<Lineage, Error> {
        Lineage::new(&identity.cluster_id, identity.incarnation)
    }

    pub fn identity(&self) -> SnapshotIdentity {
        SnapshotIdentity {
            cluster_id: self.cluster_id.clone(),
            incarnation: self.incarnation,
        }
    }

    pub fn folder(&self) -> Path {
        Path::from_iter([self.cluster_id.as_str(), &self.incarnation.to_string()])
    }

    /// Holds one folder for each backup.
    pub fn backups(&self) -> Path {
        self.folder().join(BACKUPS)
    }

    /// Holds everything of one backup.
    pub fn backup(&self, name: &BackupName) -> Path {
        self.backups().join(name.as_str())
    }

    pub fn manifest(&self, name: &BackupName) -> Path {
        self.backup(name).join(MANIFEST)
    }

    pub fn part(&self, name: &BackupName, part: &str) -> Path {
        part.split('/')
            .fold(self.backup(name), |folder, segment| folder.join(segment))
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cluster {} incarnation {}",
            self.cluster_id, self.incarnation
        )
    }
}

/// The name of a part within its backup's folder.
pub fn part_name(snapshot_id: &str, number: usize) -> String {
    format!("{snapshot_id}/{number:05}.part")
}

/// A backup's name, within its lineage: a Kubernetes object has the same one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupName(String);

impl BackupName {
    pub fn parse(text: &str) -> Result<BackupName, Error> {
        let is_end =
            |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let fits = (1..=BACKUP_NAME_CHARS_MAX).contains(&text.len())
            && is_end(text.as_bytes().first())
            && is_end(text.as_bytes().last())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.');
        if !fits {
            let bound = format!(
                "must be 1 to {BACKUP_NAME_CHARS_MAX} lower-case letters, digits, hyphens and dots, \
                 with a letter or digit at both ends"
            );
            return Err(Error::invalid("name", bound));
        }
        Ok(BackupName(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for BackupName {
    type Error = Error;

    fn try_from(text: String) -> Result<BackupName, Error> {
        BackupName::parse(&text)
    }
}

impl From<BackupName> for String {
    fn from(name: BackupName) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lineage_and_a_name_never_leave_their_folder() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "A",
            "-a",
            "a-",
            "a..",
            "a b",
            "ä",
            &"a".repeat(254),
        ] {
            assert!(BackupName::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "a/b", "..", "a.b", &"a".repeat(64)] {
            assert!(Lineage::new(bad, 1).is_err(), "{bad}");
        }
        assert!(Lineage::new("c", 0).is_err());
        let lineage = Lineage::new("6b6cbf1e-6f58", 2).expect("a lineage");
        let name = BackupName::parse("demo-i2-202611251303").expect("a name");
        assert_eq!(
            lineage.part(&name, &part_name("0a", 7)).as_ref(),
            "6b6cbf1e-6f58/2/backups/demo-i2-202611251303/0a/00007.part"
        );
        assert_eq!(
            lineage.manifest(&name).as_ref(),
            "6b6cbf1e-6f58/2/backups/demo-i2-202611251303/manifest.json"
        );
    }
}
