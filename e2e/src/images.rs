//! Container images that hold one static program and nothing else, built with buildah and kept as
//! archives in the cache.

use crate::cache::{self, Key};
use crate::process::{output, program};
use crate::progress::step;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of this crate in the checkout.
pub fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// An oci-archive of `program`, under exactly the name by which pods ask for it.
///
/// The Containerfile copies the program from its context, as plain `docker build` does too.
pub async fn from_binary(program_name: &str, image: &str, binary: &Path, containerfile: &Path) -> Result<PathBuf> {
    let key = Key::default().text(image).file(binary)?.file(containerfile)?;
    let folder = cache::entry("images", program_name, &key, async |fresh| {
        step(&format!("Build image {image}"), build(&fresh, program_name, image, binary, containerfile)).await
    })
    .await?;
    Ok(folder.join("image.tar"))
}

async fn build(folder: &Path, name: &str, image: &str, binary: &Path, containerfile: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let context = work.path().join("context");
    fs::create_dir(&context)?;
    fs::copy(binary, context.join(name)).with_context(|| format!("copy {}", binary.display()))?;
    let storage = format!("--root={}", work.path().join("root").display());
    let running = format!("--runroot={}", work.path().join("run").display());
    let buildah = |arguments: &[&str]| {
        let mut command = program("buildah", ["--storage-driver=vfs", storage.as_str(), running.as_str()]);
        command.args(arguments);
        command
    };
    let (file, context) = (containerfile.to_string_lossy(), context.to_string_lossy());
    output(&mut buildah(&["build", "--isolation=chroot", "--timestamp=0", "--tag", image, "--file", &file, &context])).await?;
    let archive = format!("oci-archive:{}:{image}", folder.join("image.tar").display());
    output(&mut buildah(&["push", "--quiet", image, &archive])).await?;
    Ok(())
}
