//! Members as processes on loopback addresses, formatted and initialized over the admin port as the operator does it.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use taskstore::config::Ports;
use taskstore::raft::certs::Authority;
use taskstore::raft::loopback::own_address;
use taskstore::server::client_tls::{CERTIFICATE_FILE, KEY_FILE};
use taskstore_api::v1::admin_client::AdminClient;
use taskstore_api::{Endpoints, TaskStoreClient, Trust, admin, tls::ClientTls, v1};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

pub const CLUSTER: &str = "6b6cbf1e-6f58-4a3c-9d0c-0d4f3c1c2d11";
/// Generous: the machine may be busy with other work.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// In the certificates of the client ports.
const SERVER_NAME: &str = "localhost";
const ASK_AGAIN: Duration = Duration::from_millis(20);

pub struct Cluster {
    pub dir: TempDir,
    pub authority: Authority,
    pub members: Vec<Process>,
}

pub struct Process {
    pub id: u64,
    pub volume_uid: String,
    pub address: Ipv4Addr,
    pub child: Child,
}

pub fn member_name(id: u64) -> String {
    format!("m{}.i1.{CLUSTER}.taskstore", id & 0xffff_ffff)
}

impl Cluster {
    /// Processes without a stamp on their volumes.
    pub fn blank(count: u64) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(CLUSTER).unwrap();
        let mut cluster = Cluster {
            dir,
            authority,
            members: Vec::new(),
        };
        for number in 1..=count {
            cluster.add(number);
        }
        cluster
    }

    pub async fn serving(count: u64) -> Cluster {
        let cluster = Cluster::blank(count);
        for index in 0..cluster.members.len() {
            cluster.format(index).await.unwrap();
        }
        for index in 0..cluster.members.len() {
            let request = v1::InitializeRequest {
                voters: cluster.founders(),
            };
            cluster
                .admin(index)
                .await
                .initialize(request)
                .await
                .unwrap();
        }
        for index in 0..cluster.members.len() {
            cluster.until(index, |status| status.ready).await;
        }
        cluster
    }

    /// Starts one more process; answers its index.
    pub fn add(&mut self, number: u64) -> usize {
        let id = (1 << 32) + number;
        let tls = self.dir.path().join(format!("m{number}-tls"));
        self.authority.member(id).unwrap().write_to(&tls).unwrap();
        let client = self.authority.issue(vec![SERVER_NAME.into()]).unwrap();
        client.write_pair(&tls, CERTIFICATE_FILE, KEY_FILE).unwrap();
        let address = own_address();
        let volume_uid = format!("volume-{number}");
        let child = self.spawn(id, &volume_uid, address);
        self.members.push(Process {
            id,
            volume_uid,
            address,
            child,
        });
        self.members.len() - 1
    }

    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("m{}", id & 0xffff_ffff))
    }

    fn spawn(&self, id: u64, volume_uid: &str, address: Ipv4Addr) -> Child {
        let number = id & 0xffff_ffff;
        fs::create_dir_all(self.data_dir(id)).unwrap();
        let log = self.dir.path().join(format!("m{number}.out"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let address = address.to_string();
        Command::new(env!("CARGO_BIN_EXE_taskstore"))
            .arg("member")
            .arg("--data-dir")
            .arg(self.data_dir(id))
            .arg("--tls-dir")
            .arg(self.dir.path().join(format!("m{number}-tls")))
            .args(["--cluster-id", CLUSTER, "--incarnation", "1"])
            .args(["--member-id", &id.to_string(), "--volume-uid", volume_uid])
            .args(["--name", &address, "--listen-ip", &address])
            .args(["--log-budget-bytes", "67108864"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    pub fn kill(&mut self, index: usize) {
        let child = &mut self.members[index].child;
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks the process to stop.
    pub fn terminate(&self, index: usize) {
        let pid = self.members[index].child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
    }

    pub fn start(&mut self, index: usize) {
        let Process {
            id,
            volume_uid,
            address,
            ..
        } = &self.members[index];
        self.members[index].child = self.spawn(*id, volume_uid, *address);
    }

    pub async fn exit(&mut self, index: usize, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.members[index].child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the process still runs\n{}",
                self.last_words()
            );
            sleep(ASK_AGAIN).await;
        }
    }

    pub fn founders(&self) -> Vec<v1::Member> {
        self.members.iter().map(Process::member).collect()
    }

    pub async fn format(&self, index: usize) -> Result<(), tonic::Status> {
        let identity = Some(self.members[index].identity());
        self.admin(index)
            .await
            .format(v1::FormatRequest { identity })
            .await
            .map(drop)
    }

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
        let number = self.members[index].id & 0xffff_ffff;
        let path = self.dir.path().join(format!("m{number}.out"));
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

impl Process {
    pub fn member(&self) -> v1::Member {
        v1::Member {
            id: self.id,
            name: self.address.to_string(),
        }
    }

    pub fn admin_address(&self) -> String {
        format!("{}:{}", self.address, Ports::default().admin)
    }

    fn client_address(&self) -> String {
        format!("{}:{}", self.address, Ports::default().client)
    }

    pub fn identity(&self) -> v1::Identity {
        let volume_uid = self.volume_uid.clone();
        v1::Identity {
            cluster_id: CLUSTER.into(),
            incarnation: 1,
            member_id: self.id,
            volume_uid,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
