//! The real input: every package of the machine's Debian index, and what is counted in it.

use crate::host;
use crate::process::{output, program};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// What a worker finds out about one package; the task's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub package: String,
    pub installed_kib: u64,
    pub download_bytes: u64,
    pub dependencies: u64,
}

/// Sums over all packages; the order of the findings does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    pub packages: u64,
    pub installed_kib: u64,
    pub download_bytes: u64,
    pub dependencies: u64,
    /// Sum of hashes over number and name: two swapped or doubled findings change it.
    pub digest: u64,
}

impl Totals {
    pub fn add(&mut self, number: usize, finding: &Finding) {
        self.packages += 1;
        self.installed_kib += finding.installed_kib;
        self.download_bytes += finding.download_bytes;
        self.dependencies += finding.dependencies;
        let hash = blake3::hash(format!("{number} {}", finding.package).as_bytes());
        let head = hash.as_bytes().first_chunk().expect("a hash has 32 bytes");
        self.digest = self.digest.wrapping_add(u64::from_le_bytes(*head));
    }
}

/// All stanzas of the machine's index, which is fetched when the machine has none yet.
pub async fn stanzas() -> Result<Vec<String>> {
    let mut stanzas = available().await?;
    if stanzas.is_empty() {
        host::refresh_package_lists().await?;
        stanzas = available().await?;
    }
    ensure!(
        !stanzas.is_empty(),
        "the package index of this machine stays empty"
    );
    Ok(stanzas)
}

/// All stanzas of `apt-cache dumpavail`, in its order.
async fn available() -> Result<Vec<String>> {
    let text = output(&mut program("apt-cache", ["dumpavail"]))
        .await
        .context("the demo works on the Debian package index of this machine")?;
    Ok(text
        .split("\n\n")
        .filter(|stanza| stanza.contains("Package: "))
        .map(str::to_owned)
        .collect())
}

/// Reads one stanza; a field that is missing counts nothing.
pub fn read(stanza: &str) -> Finding {
    let field = |name: &str| {
        stanza
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    };
    let number = |name: &str| {
        field(name)
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0)
    };
    Finding {
        package: field("Package").unwrap_or_default().to_owned(),
        installed_kib: number("Installed-Size"),
        download_bytes: number("Size"),
        dependencies: field("Depends").map_or(0, |list| list.split(',').count() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::{Totals, read};

    const STANZA: &str = "Package: sl\nInstalled-Size: 56\nDepends: libc6 (>= 2.34),\
        libncurses6 (>= 6), libtinfo6 (>= 6)\nSize: 13008\nDescription: Correct you\n Size: 1\n";

    #[test]
    fn a_stanza_is_read_by_its_fields_and_not_by_its_description() {
        let finding = read(STANZA);
        assert_eq!(
            (finding.package.as_str(), finding.installed_kib),
            ("sl", 56)
        );
        assert_eq!((finding.download_bytes, finding.dependencies), (13_008, 3));
    }

    #[test]
    fn totals_notice_findings_that_changed_places() {
        let (one, two) = (read("Package: a"), read("Package: b"));
        let mut right = Totals::default();
        right.add(1, &one);
        right.add(2, &two);
        let mut swapped = Totals::default();
        swapped.add(1, &two);
        swapped.add(2, &one);
        assert_ne!(right, swapped);
    }
}
