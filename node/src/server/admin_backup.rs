//! The admin port's orders about backups: requests into the types of `backup`, its errors into statuses.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use taskstore_api::v1;
use tonic::Status;
use uuid::Uuid;

use crate::backup::bucket::Bucket;
use crate::backup::check::{Unfit, check as check_bucket};
use crate::backup::credentials::Credentials;
use crate::backup::delete;
use crate::backup::destination::Destination;
use crate::backup::error::Error;
use crate::backup::layout::{BackupName, Lineage};
use crate::backup::manifest::{Manifest, ManifestRef};
use crate::backup::progress::{Phase, Progress};
use crate::backup::retention::Keep;
use crate::limits::BACKUPS_LISTED_MAX;
use crate::member::Member;
use crate::member::backups::{Ordered, Report, UnderWay};
use crate::member::running::Running;
use crate::member::shipping::Shipped;
use crate::service::clock::now_ms;

pub type BackupStream = Pin<Box<dyn Stream<Item = Result<v1::BackupProgress, Status>> + Send>>;

/// What can be refused is refused before the stream begins.
pub fn backup(
    member: &Member,
    running: Arc<Running>,
    request: v1::BackupRequest,
) -> Result<BackupStream, Status> {
    let (destination, credentials) = destination(member, request.destination)?;
    let ordered = Ordered {
        destination,
        credentials,
        name: BackupName::parse(&request.name).map_err(status)?,
        previous: request.previous.map(previous).transpose()?,
        bytes_per_second_max: Some(request.bytes_per_second_max).filter(|bytes| *bytes > 0),
    };
    let under_way = member
        .backups
        .start(running, ordered)
        .ok_or_else(|| Status::unavailable("another backup of this member is under way"))?;
    let stream = futures::stream::unfold(Some(under_way), |under_way| async move {
        Some(report(under_way?).await)
    });
    Ok(Box::pin(stream))
}

async fn report(mut under_way: UnderWay) -> (Result<v1::BackupProgress, Status>, Option<UnderWay>) {
    match under_way.next().await {
        Ok(Report::Progress(progress)) => (Ok(progress_message(progress)), Some(under_way)),
        Ok(Report::Done(manifest)) => (Ok(done_message(&manifest)), None),
        Err(error) => (Err(status(error)), None),
    }
}

pub type ShipLogStream = Pin<Box<dyn Stream<Item = Result<v1::LogShipped, Status>> + Send>>;

/// Ends at once when there is nothing to ship any more.
pub fn ship_log(
    member: &Member,
    running: Arc<Running>,
    request: v1::ShipLogRequest,
) -> Result<ShipLogStream, Status> {
    let to = match request.destination {
        Some(asked) => Some(destination(member, Some(asked))?),
        None => None,
    };
    let Some(shipped) = member.shipping.order(running, &member.backups, to) else {
        return Ok(Box::pin(futures::stream::empty()));
    };
    // Ends with the job: it was told to stop, or another one took its place.
    let stream = futures::stream::unfold((shipped, true), |(mut shipped, is_first)| async move {
        if !is_first {
            shipped.changed().await.ok()?;
        }
        let message = shipped_message(&shipped.borrow_and_update());
        Some((Ok(message), (shipped, false)))
    });
    Ok(Box::pin(stream))
}

fn shipped_message(shipped: &Shipped) -> v1::LogShipped {
    v1::LogShipped {
        shipped_to: shipped.last.map(|at| v1::LogId {
            term: at.term,
            index: at.index,
        }),
        wall_time_ms: shipped.wall_time_ms,
        chains_started: shipped.chains_started,
        problem: shipped.problem.clone(),
    }
}

pub async fn check(
    member: &Member,
    request: v1::CheckDestinationRequest,
) -> Result<v1::CheckDestinationResponse, Status> {
    let (bucket, lineage) = connect(member, request.destination).await?;
    let unique = Uuid::new_v4().simple().to_string();
    match check_bucket(&bucket, &lineage, &unique).await {
        Ok(()) => Ok(v1::CheckDestinationResponse::default()),
        Err(Unfit::Lacks { missing, reason }) => Ok(v1::CheckDestinationResponse {
            missing: missing.to_string(),
            reason,
        }),
        Err(Unfit::Failed(error)) => Err(status(error)),
    }
}

pub async fn prune(
    member: &Member,
    request: v1::PruneBackupsRequest,
) -> Result<v1::PruneBackupsResponse, Status> {
    if request.in_use.len() > BACKUPS_LISTED_MAX {
        let bound = format!("in_use must be at most {BACKUPS_LISTED_MAX} names");
        return Err(Status::invalid_argument(bound));
    }
    let in_use = request.in_use.iter().map(|name| BackupName::parse(name));
    let keep = Keep {
        count: Some(request.keep_count)
            .filter(|count| *count > 0)
            .map(|count| usize::try_from(count).unwrap_or(usize::MAX)),
        age_ms: Some(request.keep_age_ms).filter(|age_ms| *age_ms > 0),
        in_use: in_use.collect::<Result<_, _>>().map_err(status)?,
    };
    let (bucket, lineage) = connect(member, request.destination).await?;
    let pruned = delete::prune(&bucket, &lineage, &keep, now_ms())
        .await
        .map_err(status)?;
    let names = |names: Vec<BackupName>| names.into_iter().map(String::from).collect();
    Ok(v1::PruneBackupsResponse {
        deleted: names(pruned.deleted),
        kept: names(pruned.kept),
    })
}

async fn connect(
    member: &Member,
    asked: Option<v1::BackupDestination>,
) -> Result<(Bucket, Lineage), Status> {
    let (destination, credentials) = destination(member, asked)?;
    let identity = &member.config.member;
    let lineage = Lineage::new(&identity.cluster_id, identity.incarnation).map_err(status)?;
    let bucket = destination.connect(&credentials).await.map_err(status)?;
    Ok((bucket, lineage))
}

fn destination(
    member: &Member,
    asked: Option<v1::BackupDestination>,
) -> Result<(Destination, Credentials), Status> {
    let asked = asked.ok_or_else(|| Status::invalid_argument("destination is required"))?;
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let dir = member.config.backup_credentials_dir.as_deref();
    let credentials = Credentials::referred(dir, &asked.credentials).map_err(status)?;
    let destination = Destination {
        url: asked.url,
        endpoint: given(asked.endpoint),
        region: given(asked.region),
        path_style: asked.path_style,
        account: given(asked.account),
        ca_pem: given(asked.ca_pem),
    };
    destination.parse().map_err(status)?;
    Ok((destination, credentials))
}

fn previous(asked: v1::BackupRef) -> Result<ManifestRef, Status> {
    let name = BackupName::parse(&asked.name).map_err(status)?;
    let is_sha256 =
        asked.checksum.len() == 64 && asked.checksum.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_sha256 {
        return Err(Status::invalid_argument(
            "previous.checksum must be 64 hexadecimal digits",
        ));
    }
    Ok(ManifestRef {
        name,
        checksum: asked.checksum,
    })
}

fn progress_message(progress: Progress) -> v1::BackupProgress {
    let phase = match progress.phase {
        Phase::Uploading => v1::BackupPhase::Uploading,
        Phase::Verifying => v1::BackupPhase::Verifying,
    };
    v1::BackupProgress {
        phase: phase.into(),
        bytes_done: progress.bytes_done,
        bytes_total: progress.bytes_total,
        facts: None,
    }
}

fn done_message(manifest: &Manifest) -> v1::BackupProgress {
    let bytes = manifest.snapshot.bytes;
    let facts = v1::BackupFacts {
        r#ref: Some(v1::BackupRef {
            name: manifest.name.to_string(),
            checksum: manifest.checksum.clone(),
        }),
        cluster_id: manifest.lineage.cluster_id.clone(),
        incarnation: manifest.lineage.incarnation.into(),
        log_id: Some(v1::LogId {
            term: manifest.log_id.term,
            index: manifest.log_id.index,
        }),
        created_at_ms: manifest.created_at_ms,
        member_id: manifest.created_by.member_id,
        bytes,
        parts: manifest.parts.len() as u32,
        state_hash: manifest.snapshot.state_hash.clone(),
        tasks: manifest.counts.tasks,
    };
    v1::BackupProgress {
        phase: v1::BackupPhase::Done.into(),
        bytes_done: bytes,
        bytes_total: bytes,
        facts: Some(facts),
    }
}

fn status(error: Error) -> Status {
    let text = error.to_string();
    match error {
        Error::Invalid { .. } => Status::invalid_argument(text),
        Error::Forbidden { .. } => Status::permission_denied(text),
        Error::Missing { .. } => Status::not_found(text),
        Error::Taken { .. } => Status::aborted(text),
        Error::Damaged { .. } => Status::data_loss(text),
        Error::Newer { .. } | Error::Foreign { .. } | Error::Unsupported { .. } => {
            Status::failed_precondition(text)
        }
        Error::Unavailable { .. } | Error::Local(_) => Status::unavailable(text),
    }
}
