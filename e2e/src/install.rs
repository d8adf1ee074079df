//! Puts the product onto a cluster as a user would: both charts with the real helm.

use crate::cluster::{Cluster, Kind};
use crate::images::{self, Image, Product, workspace};
use crate::progress::step;
use anyhow::{Context, Result};

/// Where the operator runs.
pub const NAMESPACE: &str = "taskstore-system";
/// The name of the operator's release.
pub const RELEASE: &str = "taskstore";
/// The operator's Deployment under that release.
pub const DEPLOYMENT: &str = "taskstore-operator";
const CRDS_RELEASE: &str = "taskstore-crds";
const WAIT: &str = "--timeout=180s";

/// Builds the images, puts them onto the nodes and installs both charts; returns when the operator
/// is ready. Done again, it upgrades to what the checkout holds now.
pub async fn from_checkout(cluster: &Cluster) -> Result<Product> {
    let product = match cluster.kind {
        Kind::Local(_) => {
            let product = images::product().await?;
            step("Put the images onto the nodes", async {
                cluster.load(&product.node.archive).await?;
                cluster.load(&product.operator.archive).await
            })
            .await?;
            product
        }
        Kind::Given => pushed()?,
    };
    step("Install both charts", charts(cluster, &product, &[])).await?;
    Ok(product)
}

/// Installs or upgrades both charts; `values` are further `--set` arguments of the operator's.
pub async fn charts(cluster: &Cluster, product: &Product, values: &[&str]) -> Result<()> {
    let folder = |name: &str| {
        workspace()
            .join("charts")
            .join(name)
            .to_string_lossy()
            .into_owned()
    };
    cluster
        .helm(&[
            "upgrade",
            "--install",
            CRDS_RELEASE,
            &folder("taskstore-crds"),
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            // Definitions that someone applied by hand, or that an earlier release left, are the same.
            "--take-ownership",
        ])
        .await?;
    let mut set = Vec::new();
    for (key, image) in [
        ("image", &product.operator),
        ("member.image", &product.node),
    ] {
        set.push(format!(
            "{key}.repository={},{key}.tag={}",
            image.repository(),
            image.tag()
        ));
    }
    set.extend(values.iter().map(|value| (*value).to_owned()));
    let chart = folder("taskstore");
    let mut arguments = vec![
        "upgrade",
        "--install",
        RELEASE,
        &chart,
        "--namespace",
        NAMESPACE,
        "--wait",
        WAIT,
    ];
    for value in &set {
        arguments.extend(["--set", value.as_str()]);
    }
    cluster.helm(&arguments).await?;
    Ok(())
}

/// A given cluster pulls from a registry: the user says what was pushed there.
fn pushed() -> Result<Product> {
    let named = |variable: &str| -> Result<Image> {
        let reference = std::env::var(variable)
            .with_context(|| format!("{variable} is not set: on a cluster of yours it names the pushed image, with its tag"))?;
        Ok(Image {
            reference,
            archive: std::path::PathBuf::new(),
        })
    };
    Ok(Product {
        node: named("TASKSTORE_IMAGE")?,
        operator: named("TASKSTORE_OPERATOR_IMAGE")?,
    })
}
