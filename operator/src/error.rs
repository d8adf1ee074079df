//! Why a pass ended early. Progress is never an error: a wait is part of the plan.

use crds::MemberId;

use crate::certificates::CertificateError;
use crate::plan::action::short;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing}: {source}")]
    Kubernetes {
        doing: &'static str,
        #[source]
        source: kube::Error,
    },
    /// What we decided on is not the newest any more; the change that made it so wakes us again.
    #[error("{doing}: the world has moved since this was decided")]
    Stale { doing: &'static str },
    #[error("{kind} {name} exists and is not of this cluster")]
    NameTaken { kind: &'static str, name: String },
    /// Garbage collection has not come to it yet.
    #[error("{kind} {name} still belongs to an earlier cluster of this name")]
    Earlier { kind: &'static str, name: String },
    #[error(
        "the authority in Secret {name} is gone, and {certificate} still carries one that it signed; put the Secret \
         back from a backup, or delete the members' certificates to have a new authority made"
    )]
    AuthorityLost { name: String, certificate: String },
    #[error("{doing} {}: {} ({:?})", short(*member), source.message(), source.code())]
    Member {
        member: MemberId,
        doing: &'static str,
        #[source]
        source: Box<tonic::Status>,
    },
    #[error("{doing} {}: no connection to it", short(*member))]
    NotConnected {
        member: MemberId,
        doing: &'static str,
    },
    #[error("certificates: {0}")]
    Certificate(#[from] CertificateError),
    #[error("{doing}: no answer in time")]
    TimedOut { doing: &'static str },
}

impl Error {
    /// One word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kubernetes { .. } => "kubernetes",
            Self::Stale { .. } => "stale",
            Self::NameTaken { .. } => "name_taken",
            Self::Earlier { .. } => "earlier",
            Self::AuthorityLost { .. } => "authority_lost",
            Self::Member { .. } => "member",
            Self::NotConnected { .. } => "not_connected",
            Self::Certificate(_) => "certificate",
            Self::TimedOut { .. } => "timed_out",
        }
    }

    /// Whether people should read about it: the others heal within moments by themselves.
    pub fn reason(&self) -> Option<crds::Reason> {
        match self {
            Self::Kubernetes { .. } | Self::TimedOut { .. } => {
                Some(crds::Reason::WaitingForApiServer)
            }
            Self::NameTaken { .. } => Some(crds::Reason::NameTaken),
            Self::Member { .. } => Some(crds::Reason::WaitingForMembers),
            Self::Certificate(_) | Self::AuthorityLost { .. } => {
                Some(crds::Reason::WaitingForCertificates)
            }
            Self::Stale { .. } | Self::Earlier { .. } | Self::NotConnected { .. } => None,
        }
    }
}

/// Gives an API server's answer its meaning: a conflict says that we were late.
pub fn kubernetes(doing: &'static str) -> impl FnOnce(kube::Error) -> Error {
    move |source| match &source {
        kube::Error::Api(status) if status.is_conflict() => Error::Stale { doing },
        _ => Error::Kubernetes { doing, source },
    }
}
