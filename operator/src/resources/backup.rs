//! What a pod needs to reach a bucket: the Secret that is named for it, in a folder. Without the Secret backups fail,
//! and say why; a member starts all the same.

use crds::TaskStoreCluster;
use crds::names::BACKUP_VOLUME;
use k8s_openapi::api::core::v1::{PodSpec, SecretVolumeSource, Volume, VolumeMount};

const CREDENTIALS_DIR: &str = "/credentials";
/// Below it: one set of credentials.
pub const CREDENTIALS: &str = "backup";

/// The Secret that the spec names.
pub fn secret(cluster: &TaskStoreCluster) -> Option<&str> {
    let destination = &cluster.spec.backup.as_ref()?.destination;
    let secret = destination.credentials.as_ref()?;
    Some(&secret.name)
}

/// Gives the first container what is in the Secret, in a folder that it is told. Unless that is optional the pod
/// waits for it.
pub fn mount(secret: &str, is_optional: bool, spec: &mut PodSpec) {
    spec.volumes.get_or_insert_default().push(Volume {
        name: BACKUP_VOLUME.into(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(0o440),
            optional: Some(is_optional),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    if let Some(container) = spec.containers.first_mut() {
        let arguments = container.args.get_or_insert_default();
        arguments.push(format!("--backup-credentials-dir={CREDENTIALS_DIR}"));
        let mounts = container.volume_mounts.get_or_insert_default();
        mounts.push(VolumeMount {
            name: BACKUP_VOLUME.into(),
            mount_path: format!("{CREDENTIALS_DIR}/{CREDENTIALS}"),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
}

/// The Secret whose values the member of a pod has.
pub fn mounted(spec: &PodSpec) -> Option<&str> {
    let mut volumes = spec.volumes.iter().flatten();
    let volume = volumes.find(|volume| volume.name == BACKUP_VOLUME)?;
    volume.secret.as_ref()?.secret_name.as_deref()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Container;

    use super::*;

    #[test]
    fn a_member_finds_its_credentials_and_starts_without_them() {
        let mut spec = PodSpec {
            containers: vec![Container::default()],
            ..PodSpec::default()
        };
        assert_eq!(mounted(&spec), None);
        mount("bucket", true, &mut spec);
        assert_eq!(mounted(&spec), Some("bucket"));
        let source = spec.volumes.as_ref().expect("one")[0].secret.as_ref();
        assert_eq!(source.expect("a Secret").optional, Some(true));
        let container = &spec.containers[0];
        let argument = &container.args.as_ref().expect("one")[0];
        let dir = argument.strip_prefix("--backup-credentials-dir=");
        let mount = &container.volume_mounts.as_ref().expect("one")[0];
        let folder = format!("{}/{CREDENTIALS}", dir.expect("the argument"));
        assert_eq!(mount.mount_path, folder);
    }
}
