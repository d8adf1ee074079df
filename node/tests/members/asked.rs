//! What members answer: over the admin port, over the client port, as metrics, and in their logs.

use std::fs;
use std::time::Duration;

use taskstore::config::Ports;
use taskstore_api::v1::admin_client::AdminClient;
use taskstore_api::{Endpoints, TaskStoreClient, Trust, admin, tls::ClientTls, v1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use crate::harness::{ASK_AGAIN, Cluster, PATIENCE, SERVER_NAME, member_name};

impl Cluster {
    pub fn operator(&self) -> ClientTls {
        let issued = self.authority.operator().unwrap();
        ClientTls {
            ca_pem: issued.ca_pem,
            cert_pem: issued.certificate_pem,
            key_pem: issued.key_pem,
        }
    }

    /// Dials until the member listens.
    pub async fn admin(&self, index: usize) -> AdminClient<Channel> {
        let member = &self.members[index];
        let (address, name) = (member.admin_address(), member_name(member.id));
        let deadline = Instant::now() + PATIENCE;
        loop {
            match admin::connect(&address, &name, self.operator()).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "{error}\n{}", self.last_words()),
            }
            sleep(ASK_AGAIN).await;
        }
    }

    pub async fn status(&self, index: usize) -> v1::MemberStatus {
        self.until(index, |_| true).await
    }

    /// Reads the status stream until a status is as wanted; dials again when the stream ends.
    pub async fn until(
        &self,
        index: usize,
        wanted: impl Fn(&v1::MemberStatus) -> bool,
    ) -> v1::MemberStatus {
        let watch = async {
            loop {
                let Ok(stream) = self
                    .admin(index)
                    .await
                    .watch_status(v1::WatchStatusRequest {})
                    .await
                else {
                    continue;
                };
                let mut stream = stream.into_inner();
                while let Ok(Some(status)) = stream.message().await {
                    if wanted(&status) {
                        return status;
                    }
                }
            }
        };
        match tokio::time::timeout(PATIENCE, watch).await {
            Ok(status) => status,
            Err(_) => panic!(
                "member {index} never came to the wanted status\n{}",
                self.last_words()
            ),
        }
    }

    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for index in 0..self.members.len() {
                let call = async { self.status(index).await.raft.is_some_and(|raft| raft.leads) };
                if tokio::time::timeout(Duration::from_secs(2), call).await == Ok(true) {
                    return index;
                }
            }
            assert!(
                Instant::now() < deadline,
                "nobody leads\n{}",
                self.last_words()
            );
        }
    }

    pub fn client(&self, indexes: &[usize]) -> TaskStoreClient {
        let addresses = indexes
            .iter()
            .map(|index| self.members[*index].client_address());
        let trust = Trust::Tls {
            ca_pem: self.authority.ca_pem(),
            server_name: Some(SERVER_NAME.into()),
        };
        TaskStoreClient::connect(&Endpoints {
            addresses: addresses.collect(),
            trust,
        })
        .unwrap()
    }

    /// Waits until the member's metrics hold this line.
    pub async fn until_metric(&self, index: usize, line: &str) {
        let address = (self.members[index].address, Ports::default().health);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let ask = b"GET /metrics HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n";
            stream.write_all(ask).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            if answer.lines().any(|found| found.trim() == line) {
                return;
            }
            assert!(Instant::now() < deadline, "{line} never came\n{answer}");
            sleep(ASK_AGAIN).await;
        }
    }

    /// Everything that the member has logged.
    pub fn output(&self, index: usize) -> String {
        let path = self.output_path(self.members[index].volume);
        fs::read_to_string(path).unwrap_or_default()
    }

    pub fn last_words(&self) -> String {
        let mut words = String::new();
        for (index, member) in self.members.iter().enumerate() {
            let number = member.id & 0xffff_ffff;
            let text = self.output(index);
            let lines: Vec<_> = text.lines().collect();
            words += &format!(
                "member {number}:\n{}\n",
                lines[lines.len().saturating_sub(8)..].join("\n")
            );
        }
        words
    }
}
