//! The Go programs of the local cluster: built once from pinned modules, then found in the cache.

use crate::cache::{self, Key};
use crate::images;
use crate::process::{output, program};
use crate::progress::step;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

const KUBERNETES: &str = "v1.35.4";
const HELM: &str = "v4.3.1";
const VERSITYGW: &str = "v1.8.0";

/// Where each program lies.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// All components and kubectl in one program.
    pub kubernetes: PathBuf,
    /// The same program under the name by which people call it.
    pub kubectl: PathBuf,
    pub pause: PathBuf,
    pub coredns: PathBuf,
    /// The S3 server.
    pub versitygw: PathBuf,
}

/// Builds what is missing: about 9 minutes on 2 cores the first time.
pub async fn local() -> Result<Binaries> {
    let version = format!("-X k8s.io/component-base/version.gitVersion={KUBERNETES}");
    let (major, minor) = KUBERNETES[1..]
        .split_once('.')
        .context("a version has dots")?;
    let minor = minor.split('.').next().unwrap_or_default();
    let flags = format!(
        "{version} -X k8s.io/component-base/version.gitMajor={major} -X k8s.io/component-base/version.gitMinor={minor}"
    );
    let sources = images::sources().join("kubernetes");
    let components = module(
        "kubernetes",
        &sources,
        &[".", "./pause"],
        &flags,
        "about 6 minutes",
    )
    .await?;
    let coredns = module(
        "coredns",
        &sources.join("coredns"),
        &["."],
        "",
        "about a minute",
    )
    .await?;
    let versitygw = installed(
        "versitygw",
        "github.com/versity/versitygw/cmd/versitygw",
        VERSITYGW,
        "about a minute",
    )
    .await?;
    Ok(Binaries {
        kubernetes: components.join("kubernetes"),
        kubectl: components.join("kubectl"),
        pause: components.join("pause"),
        coredns: coredns.join("coredns"),
        versitygw,
    })
}

/// The real helm.
pub async fn helm() -> Result<PathBuf> {
    installed("helm", "helm.sh/helm/v4/cmd/helm", HELM, "about 4 minutes").await
}

/// A published Go program at a pinned version.
pub async fn installed(name: &str, package: &str, version: &str, long: &str) -> Result<PathBuf> {
    let key = Key::default()
        .text(&go_version().await?)
        .text(package)
        .text(version);
    let wanted = format!("{package}@{version}");
    let folder = cache::entry("go", name, &key, async |fresh| {
        let mut go = go(["install", "-trimpath", "-ldflags=-s -w", &wanted]);
        go.env("GOBIN", fresh);
        step(
            &format!("Build {name} {version} (once, {long})"),
            output(&mut go),
        )
        .await
        .map(drop)
    })
    .await?;
    Ok(folder.join(name))
}

async fn module(
    name: &str,
    folder: &Path,
    packages: &[&str],
    flags: &str,
    long: &str,
) -> Result<PathBuf> {
    let mut key = Key::default().text(&go_version().await?).text(flags);
    for file in sources(folder)? {
        key = key
            .text(&file.strip_prefix(folder)?.to_string_lossy())
            .file(&file)?;
    }
    cache::entry("go", name, &key, async |fresh| {
        let flags = format!("-ldflags=-s -w {flags}");
        let target = format!("{}/", fresh.display());
        let mut go = go([
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-mod=readonly",
            &flags,
            "-o",
            &target,
        ]);
        go.args(packages).current_dir(folder);
        step(&format!("Build {name} (once, {long})"), output(&mut go)).await?;
        if name == "kubernetes" {
            std::os::unix::fs::symlink("kubernetes", fresh.join("kubectl"))?;
        }
        Ok(())
    })
    .await
}

fn go<const N: usize>(arguments: [&str; N]) -> tokio::process::Command {
    let mut command = program("go", arguments);
    // No C: the programs run on any Linux and in an empty image.
    command.env("CGO_ENABLED", "0");
    command
}

async fn go_version() -> Result<String> {
    output(&mut go(["env", "GOVERSION"])).await
}

/// All files of one module, without the modules below it, in a fixed order.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| format!("read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                if !path.join("go.mod").exists() {
                    folders.push(path);
                }
            } else if path
                .extension()
                .is_some_and(|end| ["go", "mod", "sum"].iter().any(|known| end == *known))
            {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
