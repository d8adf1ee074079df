//! A destination as users write it, checked, and the client for it.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};
use url::Url;

use super::bucket::Bucket;
use super::credentials::{AZURE_KEYS, Credentials, GCS_KEYS, S3_KEYS};
use super::error::Error;
use super::http::Connector;
use crate::limits::{BACKUP_CA_BYTES_MAX, BACKUP_RETRIES_MAX, BACKUP_URL_CHARS_MAX};

/// A store that fails for longer is reported; the order may be repeated.
const RETRY_PATIENCE: Duration = Duration::from_secs(30);

/// As given; nothing is checked yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destination {
    /// `s3://bucket/prefix`, `gs://bucket/prefix`, `azure://container/prefix` or `file:///folder`.
    pub url: String,
    /// Instead of the provider's own; with `http://` the connection is not encrypted.
    pub endpoint: Option<String>,
    /// S3 only.
    pub region: Option<String>,
    /// S3 only: the bucket stands in the path and not in the host's name.
    pub path_style: bool,
    /// Azure only: the storage account.
    pub account: Option<String>,
    /// Certificate authorities trusted beside the public ones, in PEM.
    pub ca_pem: Option<String>,
}

/// What kind of store it is, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    S3 { bucket: String },
    Gcs { bucket: String },
    Azure { container: String },
    Folder(PathBuf),
}

impl Destination {
    /// The place and the prefix in it. Names the first field that cannot be.
    pub fn parse(&self) -> Result<(Place, Path), Error> {
        let refused = |reason: &str| Error::invalid("url", reason);
        if self.url.len() > BACKUP_URL_CHARS_MAX {
            let bound = format!("must be at most {BACKUP_URL_CHARS_MAX} characters");
            return Err(Error::invalid("url", bound));
        }
        let url = Url::parse(&self.url).map_err(|error| refused(&format!("is no URL: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("must not hold credentials"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused("must end with the prefix"));
        }
        let host = || match url.host_str() {
            Some(host) if !host.is_empty() && url.port().is_none() => Ok(host.to_owned()),
            _ => Err(refused("must name a bucket")),
        };
        let place = match url.scheme() {
            "s3" => Place::S3 { bucket: host()? },
            "gs" => Place::Gcs { bucket: host()? },
            "azure" => Place::Azure { container: host()? },
            "file" => {
                let folder = url.to_file_path();
                Place::Folder(folder.map_err(|()| refused("must name a folder of this machine"))?)
            }
            _ => {
                return Err(refused(
                    "must start with s3://, gs://, azure:// or file:///",
                ));
            }
        };
        self.check_options(&place)?;
        let prefix = match place {
            Place::Folder(_) => Path::default(),
            _ => Path::from_url_path(url.path())
                .map_err(|error| refused(&format!("has a bad prefix: {error}")))?,
        };
        Ok((place, prefix))
    }

    fn check_options(&self, place: &Place) -> Result<(), Error> {
        let is_s3 = matches!(place, Place::S3 { .. });
        if self.region.is_some() && !is_s3 {
            return Err(Error::invalid("region", "is for s3:// only"));
        }
        if self.path_style && !is_s3 {
            return Err(Error::invalid("path_style", "is for s3:// only"));
        }
        match (place, &self.account) {
            (Place::Azure { .. }, None) => {
                return Err(Error::invalid("account", "is required for azure://"));
            }
            (Place::S3 { .. } | Place::Gcs { .. } | Place::Folder(_), Some(_)) => {
                return Err(Error::invalid("account", "is for azure:// only"));
            }
            _ => {}
        }
        if self.endpoint.is_some() && matches!(place, Place::Folder(_)) {
            return Err(Error::invalid("endpoint", "is not for file:///"));
        }
        if let Some(pem) = &self.ca_pem
            && pem.len() > BACKUP_CA_BYTES_MAX
        {
            let bound = format!("must be at most {BACKUP_CA_BYTES_MAX} bytes");
            return Err(Error::invalid("ca_pem", bound));
        }
        self.endpoint_url().map(drop)
    }

    fn endpoint_url(&self) -> Result<Option<Url>, Error> {
        let Some(endpoint) = &self.endpoint else {
            return Ok(None);
        };
        let url = Url::parse(endpoint).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.host_str().is_some()
                && url.username().is_empty()
                && url.password().is_none()
                && matches!(url.path(), "" | "/")
                && url.query().is_none()
                && url.fragment().is_none()
        });
        url.map(Some).ok_or_else(|| {
            Error::invalid("endpoint", "must be http:// or https://, a host and a port")
        })
    }

    /// The client. Nothing is sent yet.
    pub async fn connect(&self, credentials: &Credentials) -> Result<Bucket, Error> {
        let (place, prefix) = self.parse()?;
        let store: Arc<dyn ObjectStore> = match &place {
            Place::S3 { bucket } => self.s3(bucket, credentials).await?,
            Place::Gcs { bucket } => self.gcs(bucket, credentials).await?,
            Place::Azure { container } => self.azure(container, credentials).await?,
            Place::Folder(folder) => {
                let opened = LocalFileSystem::new_with_prefix(folder);
                Arc::new(
                    opened
                        .map_err(|error| unusable("url", &error))?
                        .with_fsync(true),
                )
            }
        };
        Ok(Bucket::new(store, prefix, self.url.clone()))
    }

    async fn s3(
        &self,
        bucket: &str,
        credentials: &Credentials,
    ) -> Result<Arc<dyn ObjectStore>, Error> {
        let mut builder = match credentials {
            Credentials::Environment => AmazonS3Builder::from_env(),
            Credentials::Folder(_) => AmazonS3Builder::new(),
        };
        for (key, secret) in credentials.read(S3_KEYS).await? {
            builder = builder.with_config(option(key)?, secret.reveal());
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(mut endpoint) = self.endpoint_url()? {
            if !self.path_style {
                let host = format!("{bucket}.{}", endpoint.host_str().unwrap_or_default());
                let set = endpoint.set_host(Some(&host));
                set.map_err(|error| Error::invalid("endpoint", error.to_string()))?;
            }
            builder = builder
                .with_endpoint(endpoint.as_str().trim_end_matches('/'))
                .with_allow_http(endpoint.scheme() == "http");
        }
        let s3 = builder
            .with_bucket_name(bucket)
            .with_virtual_hosted_style_request(!self.path_style)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_retry(retry())
            .with_http_connector(Connector::new(self.ca_pem.as_deref())?)
            .build();
        Ok(Arc::new(s3.map_err(|error| unusable("url", &error))?))
    }

    async fn gcs(
        &self,
        bucket: &str,
        credentials: &Credentials,
    ) -> Result<Arc<dyn ObjectStore>, Error> {
        let mut builder = match credentials {
            Credentials::Environment => GoogleCloudStorageBuilder::from_env(),
            Credentials::Folder(_) => GoogleCloudStorageBuilder::new(),
        };
        for (key, secret) in credentials.read(GCS_KEYS).await? {
            builder = builder.with_config(option(key)?, secret.reveal());
        }
        if let Some(endpoint) = self.endpoint_url()? {
            builder = builder
                .with_base_url(endpoint.as_str().trim_end_matches('/'))
                .with_client_options(
                    object_store::ClientOptions::new().with_allow_http(endpoint.scheme() == "http"),
                );
        }
        let gcs = builder
            .with_bucket_name(bucket)
            .with_retry(retry())
            .with_http_connector(Connector::new(self.ca_pem.as_deref())?)
            .build();
        Ok(Arc::new(gcs.map_err(|error| unusable("url", &error))?))
    }

    async fn azure(
        &self,
        container: &str,
        credentials: &Credentials,
    ) -> Result<Arc<dyn ObjectStore>, Error> {
        let mut builder = match credentials {
            Credentials::Environment => MicrosoftAzureBuilder::from_env(),
            Credentials::Folder(_) => MicrosoftAzureBuilder::new(),
        };
        for (key, secret) in credentials.read(AZURE_KEYS).await? {
            builder = builder.with_config(option(key)?, secret.reveal());
        }
        if let Some(endpoint) = self.endpoint_url()? {
            let is_plain = endpoint.scheme() == "http";
            let endpoint = endpoint.as_str().trim_end_matches('/').to_owned();
            builder = builder.with_endpoint(endpoint).with_allow_http(is_plain);
        }
        let azure = builder
            .with_account(self.account.clone().unwrap_or_default())
            .with_container_name(container)
            .with_retry(retry())
            .with_http_connector(Connector::new(self.ca_pem.as_deref())?)
            .build();
        Ok(Arc::new(azure.map_err(|error| unusable("url", &error))?))
    }
}

/// The client's own name of an option; the values are never in its errors.
fn option<K: FromStr<Err = object_store::Error>>(key: &str) -> Result<K, Error> {
    let parsed = key.to_ascii_lowercase().parse();
    parsed.map_err(|error| unusable("credentials", &error))
}

fn retry() -> RetryConfig {
    RetryConfig {
        max_retries: BACKUP_RETRIES_MAX,
        retry_timeout: RETRY_PATIENCE,
        ..RetryConfig::default()
    }
}

fn unusable(field: &'static str, error: &object_store::Error) -> Error {
    Error::invalid(field, format!("cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Destination {
        Destination {
            url: url.into(),
            ..Destination::default()
        }
    }

    #[test]
    fn a_destination_names_a_place_and_a_prefix() {
        let (place, prefix) = at("s3://bucket/team/a/").parse().expect("good");
        let bucket = "bucket".to_owned();
        assert_eq!((place, prefix.as_ref()), (Place::S3 { bucket }, "team/a"));
        let (place, prefix) = at("file:///mnt/backups").parse().expect("good");
        let folder = PathBuf::from("/mnt/backups");
        assert_eq!((place, prefix.as_ref()), (Place::Folder(folder), ""));
        let azure = Destination {
            account: Some("acme".into()),
            ..at("azure://container")
        };
        assert!(azure.parse().is_ok() && at("gs://bucket").parse().is_ok());
    }

    #[test]
    fn what_cannot_be_is_refused_by_the_name_of_its_field() {
        let s3 = || at("s3://bucket/a");
        let folder = || at("file:///mnt");
        let text = |text: &str| Some(text.to_owned());
        #[rustfmt::skip]
        let rows = [
            (at(""), "url"),
            (at("bucket"), "url"),
            (at("ftp://bucket"), "url"),
            (at("s3://"), "url"),
            (at("s3://bucket:9000/a"), "url"),
            (at("s3://key:secret@bucket/a"), "url"),
            (at("s3://bucket/a?token=secret"), "url"),
            (at("s3://bucket/a//b"), "url"),
            (at("file://host/mnt"), "url"),
            (at(&format!("s3://bucket/{}", "a".repeat(BACKUP_URL_CHARS_MAX))), "url"),
            (at("azure://container"), "account"),
            (Destination { account: text("acme"), ..s3() }, "account"),
            (Destination { region: text("here"), ..folder() }, "region"),
            (Destination { path_style: true, ..folder() }, "path_style"),
            (Destination { endpoint: text("https://host"), ..folder() }, "endpoint"),
            (Destination { endpoint: text("host:9000"), ..s3() }, "endpoint"),
            (Destination { endpoint: text("https://a:secret@host"), ..s3() }, "endpoint"),
            (Destination { endpoint: text("https://host/path"), ..s3() }, "endpoint"),
            (Destination { ca_pem: Some("x".repeat(BACKUP_CA_BYTES_MAX + 1)), ..s3() }, "ca_pem"),
        ];
        for (destination, field) in rows {
            let refused = destination.parse().expect_err(&destination.url).to_string();
            assert!(
                refused.starts_with(&format!("{field} ")),
                "{}: {refused}",
                destination.url
            );
            assert!(!refused.contains("secret"), "{refused}");
        }
    }

    #[tokio::test]
    async fn every_kind_of_client_takes_its_credentials_from_files_and_shows_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = [S3_KEYS, AZURE_KEYS].concat();
        for key in keys {
            // Azure takes the first of its kinds that is there; a key is Base64.
            std::fs::write(dir.path().join(key), "dG9wc2VjcmV0").expect("written");
        }
        let credentials = Credentials::Folder(dir.path().to_owned());
        let endpoint = Some("http://127.0.0.1:1".to_owned());
        let s3 = Destination {
            endpoint: endpoint.clone(),
            path_style: true,
            ..at("s3://bucket")
        };
        let azure = Destination {
            endpoint: endpoint.clone(),
            account: Some("acme".into()),
            ..at("azure://container")
        };
        for destination in [s3, azure] {
            let bucket = destination.connect(&credentials).await.expect("connected");
            let bucket = bucket.with_patience(Duration::from_millis(300));
            let unreachable = bucket
                .get(&Path::from("a"), 1)
                .await
                .expect_err("nobody is there");
            let shown = format!("{unreachable} {unreachable:?} {bucket:?} {destination:?}");
            assert!(
                !shown.contains("dG9wc2VjcmV0") && !shown.contains("topsecret"),
                "{shown}"
            );
        }
        let gcs = Destination {
            endpoint,
            ..at("gs://bucket")
        };
        let refused = gcs
            .connect(&credentials)
            .await
            .expect_err("there is no key");
        assert!(
            refused.to_string().contains("GOOGLE_SERVICE_ACCOUNT_KEY"),
            "{refused}"
        );
        let key = dir.path().join("GOOGLE_SERVICE_ACCOUNT_KEY");
        std::fs::write(
            key,
            r#"{"private_key": "topsecret", "private_key_id": "1", "client_email": "a@b"}"#,
        )
        .expect("written");
        let refused = gcs.connect(&credentials).await.expect_err("no key at all");
        assert!(
            !format!("{refused} {refused:?}").contains("topsecret"),
            "{refused}"
        );
        let with_authority = Destination {
            ca_pem: Some("no certificate".into()),
            ..at("s3://bucket")
        };
        let refused = with_authority
            .connect(&credentials)
            .await
            .expect_err("refused");
        assert!(refused.to_string().starts_with("ca_pem "), "{refused}");
    }
}
