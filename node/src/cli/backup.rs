//! `taskstore backup`: what lies in a bucket, seen without any cluster, and the order to make one more.

mod args;
mod show;

use std::process::ExitCode;

use anyhow::{anyhow, bail};
use taskstore_api::{admin, v1};

use self::args::{Action, Create, Prune};
pub use self::args::{At, BackupArgs};
pub use self::show::Output;
use super::drill::in_scratch;
use crate::backup::bucket::Bucket;
use crate::backup::check::check;
use crate::backup::delete::{delete, prune};
use crate::backup::download::download;
use crate::backup::layout::{BackupName, Lineage};
use crate::backup::list::{backups, lineages};
use crate::backup::log::replay::{Upto, replay};
use crate::backup::progress::Noted;
use crate::backup::retention::Keep;
use crate::backup::verify::{read_manifest, verify};
use crate::service::clock::now_ms;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Runs one action and prints its answer.
pub async fn run(args: BackupArgs) -> anyhow::Result<ExitCode> {
    let output = Output::asked(args.json);
    let at = args.at;
    match args.action {
        Action::Create(ordered) => create(&at, &ordered, output).await?,
        Action::List => {
            let bucket = open(&at).await?;
            let mut all = Vec::new();
            for lineage in lineages(&bucket).await? {
                if at.is_meant(&lineage) {
                    let listed = backups(&bucket, &lineage).await?;
                    all.push((lineage, listed));
                }
            }
            output.listed(&all);
        }
        Action::Inspect { name } => {
            let (bucket, lineage, name) = meant(&at, &name).await?;
            output.inspected(&read_manifest(&bucket, &lineage, &name).await?);
        }
        Action::Verify { name, with_log } => {
            let (bucket, lineage, name) = meant(&at, &name).await?;
            let manifest = verify(&bucket, &lineage, &name, &Noted::default()).await?;
            let reached = match with_log {
                true => {
                    let after = manifest.log_id.into();
                    Some(replay(&bucket, &lineage, after, Upto::Latest, |_, _| Ok(())).await?)
                }
                false => None,
            };
            output.verified(&manifest, reached);
        }
        Action::Drill(asked) => {
            let bucket = open(&at).await?;
            let lineage = only(&bucket, &at).await?;
            output.drilled(&in_scratch(&bucket, &lineage, &asked.scratch_dir).await?);
        }
        Action::Export { name, file } => {
            let (bucket, lineage, name) = meant(&at, &name).await?;
            let noted = Noted::default();
            let manifest = download(&bucket, &lineage, &name, &file, &noted).await?;
            output.verified(&manifest, None);
        }
        Action::Delete { name } => {
            let (bucket, lineage, name) = meant(&at, &name).await?;
            delete(&bucket, &lineage, &name).await?;
            output.deleted(&[name]);
        }
        Action::Prune(asked) => {
            let bucket = open(&at).await?;
            let lineage = only(&bucket, &at).await?;
            let keep = keep(asked)?;
            output.deleted(&prune(&bucket, &lineage, &keep, now_ms()).await?.deleted);
        }
        Action::Check(asked) => {
            let bucket = open(&at).await?;
            let cluster = at.cluster_id.as_deref().unwrap_or(&asked.cluster);
            let lineage = Lineage::new(cluster, at.incarnation.unwrap_or(1))?;
            let unique = uuid::Uuid::new_v4().simple().to_string();
            check(&bucket, &lineage, &unique).await?;
            output.fit();
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn open(at: &At) -> anyhow::Result<Bucket> {
    Ok(at.destination()?.connect(&at.credentials()).await?)
}

async fn create(at: &At, create: &Create, output: Output) -> anyhow::Result<()> {
    let request = create.request(at.destination()?)?;
    let mut client = admin::connect(&create.admin, &create.server_name, create.tls()?).await?;
    let mut stream = client.backup(request).await.map_err(refused)?.into_inner();
    while let Some(progress) = stream.message().await.map_err(refused)? {
        match &progress.facts {
            Some(facts) if progress.phase() == v1::BackupPhase::Done => {
                output.created(facts);
                return Ok(());
            }
            _ => output.progress(&progress),
        }
    }
    bail!("the member ended before the backup was complete")
}

fn refused(status: tonic::Status) -> anyhow::Error {
    anyhow!("{}", status.message())
}

fn keep(asked: Prune) -> anyhow::Result<Keep> {
    if asked.keep_count.is_none() && asked.keep_days.is_none() {
        bail!("keep-count or keep-days is required");
    }
    let in_use = asked.in_use.iter().map(|name| BackupName::parse(name));
    Ok(Keep {
        count: asked.keep_count,
        age_ms: asked.keep_days.map(|days| days.saturating_mul(DAY_MS)),
        in_use: in_use.collect::<Result<_, _>>()?,
    })
}

/// The lineage that holds something of this name.
async fn meant(at: &At, name: &str) -> anyhow::Result<(Bucket, Lineage, BackupName)> {
    let bucket = open(at).await?;
    let name = BackupName::parse(name)?;
    let mut found = Vec::new();
    for lineage in lineages(&bucket).await? {
        if at.is_meant(&lineage) && !bucket.objects(&lineage.backup(&name)).await?.is_empty() {
            found.push(lineage);
        }
    }
    let lineage = one(found, &format!("a backup named {name}"))?;
    Ok((bucket, lineage, name))
}

/// The only lineage that can be meant.
pub async fn only(bucket: &Bucket, at: &At) -> anyhow::Result<Lineage> {
    let found = lineages(bucket).await?;
    one(
        found
            .into_iter()
            .filter(|lineage| at.is_meant(lineage))
            .collect(),
        "backups",
    )
}

fn one(mut found: Vec<Lineage>, what: &str) -> anyhow::Result<Lineage> {
    match (found.pop(), found.is_empty()) {
        (Some(lineage), true) => Ok(lineage),
        (None, _) => bail!("the bucket does not hold {what}"),
        (Some(last), false) => {
            let names: Vec<String> = found
                .iter()
                .chain([&last])
                .map(Lineage::to_string)
                .collect();
            bail!(
                "several hold {what}: {}; choose by --cluster-id and --incarnation",
                names.join(", ")
            )
        }
    }
}
