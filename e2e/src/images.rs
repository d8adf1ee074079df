//! Container images that hold one static program and nothing else, built with buildah and kept as
//! archives in the cache.

use crate::cache::{self, Key};
use crate::process::{output, program};
use crate::progress::step;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// No image of ours is larger, neither as it is pulled nor as it lies on a node's disk. We aim at 25 MiB; the
/// clients of three object stores have taken the member's beyond that.
pub const BYTES_MAX: u64 = 27 * 1024 * 1024;
/// Where local images seem to come from; nothing is ever pulled from there.
const REGISTRY: &str = "taskstore.local";

/// An image archive and the name under which pods find it.
#[derive(Clone, Debug)]
pub struct Image {
    /// `taskstore.local/<program>:<hash>`: other content is another name, so a changed program
    /// is rolled out by any tool that compares names.
    pub reference: String,
    pub archive: PathBuf,
}

impl Image {
    pub fn repository(&self) -> &str {
        self.reference
            .rsplit_once(':')
            .map_or(self.reference.as_str(), |(repository, _)| repository)
    }

    pub fn tag(&self) -> &str {
        self.reference
            .rsplit_once(':')
            .map_or("latest", |(_, tag)| tag)
    }
}

/// The product's two images.
#[derive(Clone, Debug)]
pub struct Product {
    pub node: Image,
    pub operator: Image,
}

/// Compiles both programs statically, in one call of cargo, and packs what changed.
pub async fn product() -> Result<Product> {
    let triple = host_triple().await?;
    let flags = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        triple.to_uppercase().replace('-', "_")
    );
    let mut cargo = cargo(&[
        "build",
        "--release",
        "--target",
        &triple,
        "-p",
        "taskstore-node",
        "-p",
        "taskstore-operator",
        "--bin",
        "taskstore",
        "--bin",
        "taskstore-operator",
    ]);
    // Only for this target: build scripts and macros of the same call stay as they are.
    cargo.env(flags, "-C target-feature=+crt-static");
    step("Compile the static programs", output(&mut cargo)).await?;
    let built = target_folder().await?.join(&triple).join("release");
    Ok(Product {
        node: pack("taskstore", &built, "node/Containerfile").await?,
        operator: pack("taskstore-operator", &built, "operator/Containerfile").await?,
    })
}

/// The folder with `kubectl-taskstore`, which runs on this machine and is in no image.
pub async fn plugin() -> Result<PathBuf> {
    let wanted = [
        "build",
        "-p",
        "taskstore-operator",
        "--bin",
        "kubectl-taskstore",
    ];
    step("Compile the kubectl plugin", output(&mut cargo(&wanted))).await?;
    Ok(target_folder().await?.join("debug"))
}

async fn pack(name: &str, built: &Path, containerfile: &str) -> Result<Image> {
    let (binary, containerfile) = (built.join(name), workspace().join(containerfile));
    let tag = Key::default().file(&binary)?.file(&containerfile)?.short();
    let reference = format!("{REGISTRY}/{name}:{tag}");
    let archive = from_binary(name, &reference, &binary, &containerfile).await?;
    Ok(Image { reference, archive })
}

/// The same content under another tag, as a rebuild of the same sources would be.
pub async fn again(image: &Image) -> Result<Image> {
    let (reference, source) = (format!("{}-again", image.reference), &image.archive);
    let key = Key::default().text(&reference).file(source)?;
    let folder = cache::entry("images", "again", &key, async |fresh| {
        let archive = format!(
            "oci-archive:{}:{reference}",
            fresh.join("image.tar").display()
        );
        let work = tempfile::tempdir()?;
        let root = format!("--root={}", work.path().join("root").display());
        let running = format!("--runroot={}", work.path().join("run").display());
        let from = format!("oci-archive:{}", source.display());
        let options = ["--storage-driver=vfs", root.as_str(), running.as_str()];
        let id = output(program("buildah", options).args(["pull", "--quiet", &from])).await?;
        output(program("buildah", options).args(["push", "--quiet", id.trim(), &archive]))
            .await
            .map(drop)
    })
    .await?;
    let archive = folder.join("image.tar");
    Ok(Image { reference, archive })
}

/// How large an image is.
pub struct Sizes {
    /// With compressed layers: what a registry serves.
    pub archive_bytes: u64,
    pub unpacked_bytes: u64,
}

/// Checks what the images promise: small, one file in them, the program, and an ordinary user to run it.
pub async fn check(image: &Image, program_name: &str) -> Result<Sizes> {
    let mut sizes = Sizes {
        archive_bytes: fs::metadata(&image.archive)?.len(),
        unpacked_bytes: 0,
    };
    let work = tempfile::tempdir()?;
    let mut unpack = program("tar", ["-xf"]);
    output(unpack.arg(&image.archive).arg("-C").arg(work.path())).await?;
    let index: Manifests = read_json(&work.path().join("index.json"))?;
    let blob = |digest: &str| work.path().join("blobs").join(digest.replace(':', "/"));
    ensure!(
        index.manifests.len() == 1,
        "{} holds {} images",
        image.reference,
        index.manifests.len()
    );
    let manifest: Layers = read_json(&blob(&index.manifests[0].digest))?;
    let config: ImageConfig = read_json(&blob(&manifest.config.digest))?;
    let user = config.config.user;
    // A name would have to be looked up in a file that is not there.
    ensure!(
        user.split(':')
            .all(|id| id.parse().is_ok_and(|id: u32| id > 0)),
        "{} runs as {user:?} and not as a user and group with numbers above 0",
        image.reference
    );
    let mut files = Vec::new();
    for layer in &manifest.layers {
        let mut list = program("tar", ["--numeric-owner", "-tvf"]);
        let text = output(list.arg(blob(&layer.digest))).await?;
        // Mode, owner, size, date, time, name.
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let &[_, _, bytes, _, _, name] = fields.as_slice() else {
                bail!("{} holds {line:?}", image.reference);
            };
            sizes.unpacked_bytes += bytes.parse::<u64>()?;
            files.push(name.to_owned());
        }
    }
    ensure!(
        files == [program_name],
        "{} holds {files:?} and not just {program_name}",
        image.reference
    );
    let largest = sizes.archive_bytes.max(sizes.unpacked_bytes);
    ensure!(
        largest <= BYTES_MAX,
        "{} has {largest} bytes, the limit is {BYTES_MAX}",
        image.reference
    );
    Ok(sizes)
}

#[derive(Deserialize)]
struct Manifests {
    manifests: Vec<Digest>,
}

#[derive(Deserialize)]
struct Layers {
    config: Digest,
    layers: Vec<Digest>,
}

#[derive(Deserialize)]
struct ImageConfig {
    config: RunConfig,
}

#[derive(Deserialize)]
struct RunConfig {
    #[serde(rename = "User", default)]
    user: String,
}

#[derive(Deserialize)]
struct Digest {
    digest: String,
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))
}

/// The cargo that started us, or the one on the path, in the checkout.
pub fn cargo(arguments: &[&str]) -> tokio::process::Command {
    let mut command = program(
        std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        arguments,
    );
    command.current_dir(workspace());
    command
}

async fn target_folder() -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let text = output(&mut cargo(&["metadata", "--no-deps", "--format-version=1"])).await?;
    Ok(serde_json::from_str::<Metadata>(&text)?.target_directory)
}

async fn host_triple() -> Result<String> {
    let text = output(&mut program("rustc", ["-vV"])).await?;
    let host = text
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc -vV names no host")?;
    Ok(host.to_owned())
}

/// The root of the checkout.
pub fn workspace() -> &'static Path {
    sources()
        .parent()
        .expect("this crate is one folder below the workspace")
}

/// The folder of this crate in the checkout: the one that cargo runs now, which need not be the one that
/// this program was compiled in when two checkouts share what they build.
pub fn sources() -> &'static Path {
    static SOURCES: LazyLock<PathBuf> = LazyLock::new(|| {
        let now = std::env::var_os("CARGO_MANIFEST_DIR");
        now.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
    });
    &SOURCES
}

/// An oci-archive of `program`, under exactly the name by which pods ask for it.
///
/// The Containerfile copies the program from its context, as plain `docker build` does too.
pub async fn from_binary(
    program_name: &str,
    image: &str,
    binary: &Path,
    containerfile: &Path,
) -> Result<PathBuf> {
    let key = Key::default()
        .text(image)
        .file(binary)?
        .file(containerfile)?;
    let folder = cache::entry("images", program_name, &key, async |fresh| {
        step(
            &format!("Build image {image}"),
            build(&fresh, program_name, image, binary, containerfile),
        )
        .await
    })
    .await?;
    Ok(folder.join("image.tar"))
}

async fn build(
    folder: &Path,
    name: &str,
    image: &str,
    binary: &Path,
    containerfile: &Path,
) -> Result<()> {
    let work = tempfile::tempdir()?;
    let context = work.path().join("context");
    fs::create_dir(&context)?;
    fs::copy(binary, context.join(name)).with_context(|| format!("copy {}", binary.display()))?;
    let storage = format!("--root={}", work.path().join("root").display());
    let running = format!("--runroot={}", work.path().join("run").display());
    let buildah = |arguments: &[&str]| {
        let mut command = program(
            "buildah",
            ["--storage-driver=vfs", storage.as_str(), running.as_str()],
        );
        command.args(arguments);
        command
    };
    let (file, context) = (containerfile.to_string_lossy(), context.to_string_lossy());
    output(&mut buildah(&[
        "build",
        "--isolation=chroot",
        "--timestamp=0",
        "--tag",
        image,
        "--file",
        &file,
        &context,
    ]))
    .await?;
    let archive = format!("oci-archive:{}:{image}", folder.join("image.tar").display());
    output(&mut buildah(&["push", "--quiet", image, &archive])).await?;
    Ok(())
}
