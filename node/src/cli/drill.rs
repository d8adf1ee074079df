//! `taskstore drill`: a restore into nothing, for the operator, who reads the report.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::restore::Order;
use crate::backup::bucket::Bucket;
use crate::backup::drill::{Drilled, drill};
use crate::backup::layout::Lineage;
use crate::backup::progress::Noted;

#[derive(Debug, Clone, Args)]
pub struct DrillArgs {
    /// The bucket and the folder in it, as a JSON object.
    #[arg(long, value_name = "JSON")]
    pub order: Order,
    /// Holds the folder of credentials that the order names.
    #[arg(long)]
    pub backup_credentials_dir: Option<PathBuf>,
    /// For the time of the drill it needs room for a snapshot.
    #[arg(long)]
    pub scratch_dir: PathBuf,
    /// Where to write what came of it, as JSON.
    #[arg(long)]
    pub report: PathBuf,
}

/// A problem is told in the report and in the exit code.
pub async fn run(args: DrillArgs) -> anyhow::Result<ExitCode> {
    let came_of_it = drilled(&args).await;
    std::fs::write(&args.report, report(&came_of_it).to_string())?;
    came_of_it.map(|_| ExitCode::SUCCESS)
}

async fn drilled(args: &DrillArgs) -> anyhow::Result<Drilled> {
    let credentials_dir = args.backup_credentials_dir.as_deref();
    let order = args.order.clone().checked(credentials_dir)?;
    let bucket = order.from.connect(&order.credentials).await?;
    in_scratch(&bucket, &order.wanted.lineage, &args.scratch_dir).await
}

/// Leaves nothing in the folder.
pub async fn in_scratch(
    bucket: &Bucket,
    lineage: &Lineage,
    scratch_dir: &Path,
) -> anyhow::Result<Drilled> {
    let folder = scratch_dir.join(format!("drill-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(&folder)?;
    let drilled = drill(bucket, lineage, &folder, &Noted::default()).await;
    let removed = std::fs::remove_dir_all(&folder);
    let drilled = drilled?;
    removed?;
    Ok(drilled)
}

fn report(came_of_it: &anyhow::Result<Drilled>) -> Value {
    match came_of_it {
        Ok(drilled) => json!({ "drilled": drilled }),
        Err(error) => json!({ "problem": format!("{error:#}") }),
    }
}
