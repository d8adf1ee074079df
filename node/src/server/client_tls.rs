//! The certificate of the client port, swapped when its files are renewed; open connections keep theirs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;

use super::listen::client_port_tls;

pub const CERTIFICATE_FILE: &str = "client.crt";
pub const KEY_FILE: &str = "client.key";

/// The files in use and what was made of them.
pub struct ClientTls {
    dir: PathBuf,
    current: RwLock<(Files, Arc<ServerConfig>)>,
}

#[derive(PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl ClientTls {
    pub fn load(dir: &Path) -> Result<ClientTls, String> {
        let current = RwLock::new(read(dir)?);
        Ok(ClientTls {
            dir: dir.to_path_buf(),
            current,
        })
    }

    pub fn current(&self) -> Arc<ServerConfig> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .clone()
    }

    /// Takes renewed files into use; a half-written pair is an error and the old one stays.
    pub fn reload(&self) -> Result<(), String> {
        let fresh = read(&self.dir)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.0 != fresh.0 {
            *current = fresh;
        }
        Ok(())
    }
}

fn read(dir: &Path) -> Result<(Files, Arc<ServerConfig>), String> {
    let file =
        |name: &str| std::fs::read(dir.join(name)).map_err(|error| format!("{name}: {error}"));
    let files = Files {
        certificate: file(CERTIFICATE_FILE)?,
        key: file(KEY_FILE)?,
    };
    let config = client_port_tls(&files.certificate, &files.key)?;
    Ok((files, Arc::new(config)))
}
