//! Every name, label, port and address that is derived from a cluster. None is spelled elsewhere.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest name of a TaskStoreCluster, in characters. A pod's name is its host name, a DNS label of
/// 63, and `-65535-4294967295` (largest incarnation, largest number) must fit behind the cluster's.
pub const CLUSTER_NAME_CHARS_MAX: usize = 63 - "-65535-4294967295".len();

pub const CLIENT_PORT: u16 = 7400;
pub const ADMIN_PORT: u16 = 7401;
pub const PEER_PORT: u16 = 7402;
/// Health and metrics of a member.
pub const HEALTH_PORT: u16 = 7403;

/// The container that runs a member, in every pod.
pub const MEMBER_CONTAINER: &str = "taskstore";
/// The volume that holds a member's data, in every pod.
pub const DATA_VOLUME: &str = "data";
/// The volume with a member's certificates and keys, in every pod.
pub const TLS_VOLUME: &str = "tls";
/// The volume with the CA that containers beside a member trust.
pub const CA_VOLUME: &str = "taskstore-ca";

/// The volume with the credentials of a bucket, in pods that are to reach one with a Secret's.
pub const BACKUP_VOLUME: &str = "taskstore-backup";

/// Labels of what we make. All of them are indexed by the API server; facts that nobody selects by
/// are annotations.
pub mod label {
    pub const APP_NAME: &str = "app.kubernetes.io/name";
    pub const APP_INSTANCE: &str = "app.kubernetes.io/instance";
    pub const APP_COMPONENT: &str = "app.kubernetes.io/component";
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Name of the TaskStoreCluster; on everything we make.
    pub const CLUSTER: &str = "taskstore.dev/cluster";
    /// Cluster id, incarnation and member id: on every volume from its creation, and on its pod.
    pub const CLUSTER_ID: &str = "taskstore.dev/cluster-id";
    pub const INCARNATION: &str = "taskstore.dev/incarnation";
    pub const MEMBER_ID: &str = "taskstore.dev/member-id";
    /// On the pod of a voter: what the disruption budget selects. Set before a promotion; it goes
    /// with the pod, which is deleted after the removal has committed.
    pub const VOTER: &str = "taskstore.dev/voter";
    /// On a volume that has been stamped: an empty directory behind it is a lost volume.
    pub const FORMATTED: &str = "taskstore.dev/formatted";
    /// On a volume whose member was removed for good: it is never started again.
    pub const RETIRED: &str = "taskstore.dev/retired";

    /// On a cluster: UID of the TaskStoreRestore that made it.
    pub const RESTORE_UID: &str = "taskstore.dev/restore-uid";

    pub const TRUE: &str = "true";
    pub const APP_NAME_VALUE: &str = "taskstore";
    pub const COMPONENT_MEMBER: &str = "member";
    pub const COMPONENT_DRILL: &str = "drill";
    pub const MANAGED_BY_VALUE: &str = "taskstore-operator";
}

/// Annotations of what we make.
pub mod annotation {
    /// On a pod: the hash of what it was rendered to, without its image and what is the member's own.
    pub const TEMPLATE_HASH: &str = "taskstore.dev/template-hash";
    /// On the pod of a drill: the destination that it reads, in short, and the folder in it.
    pub const DRILL_OF: &str = "taskstore.dev/drill-of";
    /// On a pod: the revision of the renderer that made it.
    pub const RENDERER_REVISION: &str = "taskstore.dev/renderer-revision";
    /// On a pod: the image that the spec named for it. Absent when the spec named none, and it took the one
    /// that its operator was installed with. What runs may read otherwise: a registry mirror rewrites it.
    pub const IMAGE: &str = "taskstore.dev/image";
    /// On a pod whose image was changed in place: the container that was to go. While it is still the one
    /// there is, what it says about being Ready is about the old image.
    pub const REPLACED_CONTAINER: &str = "taskstore.dev/replaced-container";
    /// On a pod with containers of the user's: the images that the spec named for them, as a JSON object.
    pub const APP_IMAGES: &str = "taskstore.dev/app-images";
    /// The same as [`REPLACED_CONTAINER`] for those containers, separated by commas.
    pub const REPLACED_APP_CONTAINERS: &str = "taskstore.dev/replaced-app-containers";
}

/// A member's Raft id: incarnation · 2³² + number. Numbers only grow and are never used again.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct MemberId(pub u64);

impl MemberId {
    pub fn new(incarnation: u16, number: u32) -> Self {
        Self(u64::from(incarnation) << 32 | u64::from(number))
    }

    /// The high bits; ids whose incarnation does not fit 16 bits are nobody's and saturate.
    pub fn incarnation(self) -> u16 {
        u16::try_from(self.0 >> 32).unwrap_or(u16::MAX)
    }

    pub fn number(self) -> u32 {
        (self.0 & u64::from(u32::MAX)) as u32
    }

    /// The value of [`label::MEMBER_ID`] read back.
    pub fn parse(label: &str) -> Option<Self> {
        label.parse().ok().map(Self)
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Pod of a member, and its host name.
pub fn pod(cluster: &str, member: MemberId) -> String {
    format!("{cluster}-{}-{}", member.incarnation(), member.number())
}

/// Pod of a restore drill. No member's: those end with two numbers.
pub fn drill(cluster: &str) -> String {
    format!("{cluster}-drill")
}

/// Volume claim of a member: the same name as its pod.
pub fn volume_claim(cluster: &str, member: MemberId) -> String {
    pod(cluster, member)
}

/// Secret with a member's own certificate and key, and the CA bundle of peers and admin.
pub fn member_secret(cluster: &str, member: MemberId) -> String {
    format!("{}-tls", pod(cluster, member))
}

/// Service that clients use.
pub fn client_service(cluster: &str) -> String {
    cluster.to_owned()
}

/// Headless Service that gives every member its stable DNS name, ready or not.
pub fn peer_service(cluster: &str) -> String {
    format!("{cluster}-peers")
}

/// Secret with the key of the cluster's own CA. Only the operator reads it; no pod mounts it.
pub fn ca_secret(cluster: &str) -> String {
    format!("{cluster}-ca")
}

/// ConfigMap with the CA certificates (`ca.crt`) that clients trust when the client port uses our CA.
pub fn ca_config_map(cluster: &str) -> String {
    format!("{cluster}-ca")
}

/// Secret with the certificate of the client port, signed by our CA, when the spec names none.
pub fn client_secret(cluster: &str) -> String {
    format!("{cluster}-client-tls")
}

pub fn disruption_budget(cluster: &str) -> String {
    cluster.to_owned()
}

/// ServiceAccount of the members' pods; no token is mounted.
pub fn service_account(cluster: &str) -> String {
    format!("{cluster}-members")
}

/// The stable DNS name of a member: what Raft's node entry holds, never an IP.
pub fn member_host(cluster: &str, namespace: &str, member: MemberId) -> String {
    format!(
        "{}.{}.{namespace}.svc",
        pod(cluster, member),
        peer_service(cluster)
    )
}

/// DNS name of the client Service.
pub fn client_host(cluster: &str, namespace: &str) -> String {
    format!("{}.{namespace}.svc", client_service(cluster))
}

/// The TLS server name of a member: synthetic, independent of its address, bound to its incarnation.
pub fn member_tls_name(cluster_id: &str, member: MemberId) -> String {
    format!(
        "m{}.i{}.{cluster_id}.taskstore",
        member.number(),
        member.incarnation()
    )
}

/// The name in the certificate that the operator shows on the admin port. The server's side of the
/// handshake already holds the incarnation.
pub fn operator_tls_name(cluster_id: &str) -> String {
    format!("operator.{cluster_id}.taskstore")
}

/// Label selector of every pod of a cluster, as `status.selector` holds it.
pub fn pod_selector(cluster: &str) -> String {
    format!(
        "{}={},{}={cluster}",
        label::APP_COMPONENT,
        label::COMPONENT_MEMBER,
        label::CLUSTER
    )
}

/// The backup that a schedule asks for at a moment: the same for every operator that finds it due.
pub fn scheduled_backup(cluster: &str, incarnation: u16, at: Timestamp) -> String {
    format!("{cluster}-i{incarnation}-{}", at.strftime("%Y%m%d%H%M"))
}

/// The moment back from the name.
pub fn scheduled_at(cluster: &str, incarnation: u16, backup: &str) -> Option<Timestamp> {
    let minute = backup.strip_prefix(&format!("{cluster}-i{incarnation}-"))?;
    let digits = minute.len() == 12 && minute.bytes().all(|b| b.is_ascii_digit());
    let read = || {
        DateTime::strptime("%Y%m%d%H%M", minute)
            .ok()?
            .to_zoned(TimeZone::UTC)
            .ok()
    };
    digits.then(read)?.map(|zoned| zoned.timestamp())
}

/// Whether a Secret's name is one that the operator makes for this cluster.
pub fn is_own_secret(cluster: &str, secret: &str) -> bool {
    let Some(rest) = secret.strip_prefix(cluster) else {
        return false;
    };
    let member = || {
        let mut parts = rest.strip_prefix('-')?.strip_suffix("-tls")?.split('-');
        let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        (numeric(parts.next()?) && numeric(parts.next()?) && parts.next().is_none()).then_some(())
    };
    rest == "-ca" || rest == "-client-tls" || member().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_id_holds_its_incarnation_and_its_number() {
        let id = MemberId::new(2, 7);
        assert_eq!(id.0, 2 * (1 << 32) + 7);
        assert_eq!((id.incarnation(), id.number()), (2, 7));
        assert_eq!(MemberId::parse(&id.to_string()), Some(id));
    }

    #[test]
    fn every_name_of_the_longest_cluster_fits_a_dns_label() {
        let cluster = "c".repeat(CLUSTER_NAME_CHARS_MAX);
        let member = MemberId::new(u16::MAX, u32::MAX);
        for name in [
            pod(&cluster, member),
            volume_claim(&cluster, member),
            client_service(&cluster),
            peer_service(&cluster),
            disruption_budget(&cluster),
            service_account(&cluster),
        ] {
            assert!(name.len() <= 63, "{name} has {} characters", name.len());
        }
        assert_eq!(pod(&cluster, member).len(), 63);
    }

    #[test]
    fn names_of_a_small_cluster_read_well() {
        let member = MemberId::new(1, 3);
        assert_eq!(pod("demo", member), "demo-1-3");
        assert_eq!(
            member_host("demo", "shop", member),
            "demo-1-3.demo-peers.shop.svc"
        );
        assert_eq!(member_tls_name("uid", member), "m3.i1.uid.taskstore");
        assert_eq!(member_secret("demo", member), "demo-1-3-tls");
    }

    #[test]
    fn a_scheduled_backup_says_when_it_was_due() {
        let at: Timestamp = "2026-11-25T03:05:00Z".parse().unwrap();
        let name = scheduled_backup("demo", 2, at);
        assert_eq!(name, "demo-i2-202611250305");
        assert_eq!(scheduled_at("demo", 2, &name), Some(at));
        for other in [
            "demo-i1-202611250305",
            "demo-i2-2026",
            "demo-i2-20261125030x",
            "by-hand",
        ] {
            assert_eq!(scheduled_at("demo", 2, other), None, "{other}");
        }
    }

    #[test]
    fn our_own_secrets_are_told_from_a_users() {
        for own in ["demo-ca", "demo-client-tls", "demo-1-3-tls"] {
            assert!(is_own_secret("demo", own), "{own}");
        }
        for other in [
            "demo-tls",
            "demo-web-tls",
            "other-ca",
            "demo-1-tls",
            "demo-1-2-3-tls",
            "demo-1-x-tls",
        ] {
            assert!(!is_own_secret("demo", other), "{other}");
        }
    }
}
