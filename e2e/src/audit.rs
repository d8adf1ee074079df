//! What pods asked the local API server for, by its audit log.

use crate::local::layout::audit_log;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

/// A moment in the log.
pub struct Audit {
    bytes_before: u64,
}

/// A request that was answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub verb: String,
    #[serde(rename = "requestURI")]
    pub uri: String,
    user: User,
    object_ref: Option<ObjectRef>,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Clone, Debug, Deserialize)]
struct ObjectRef {
    resource: String,
}

impl Request {
    pub fn resource(&self) -> &str {
        let asked = self.object_ref.as_ref();
        asked.map_or("", |asked| asked.resource.as_str())
    }
}

impl Audit {
    pub fn from_now() -> Result<Self> {
        let log = std::fs::metadata(audit_log()).context("the API server writes no audit log")?;
        Ok(Self {
            bytes_before: log.len(),
        })
    }

    /// What the accounts of a namespace have asked for since.
    pub fn of_namespace(&self, namespace: &str) -> Result<Vec<Request>> {
        let mut file = File::open(audit_log())?;
        file.seek(SeekFrom::Start(self.bytes_before))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let account = format!("system:serviceaccount:{namespace}:");
        let mut requests = Vec::new();
        for line in whole.lines() {
            let request: Request = serde_json::from_str(line).context("read the audit log")?;
            if request.user.username.starts_with(&account) {
                requests.push(request);
            }
        }
        Ok(requests)
    }
}
