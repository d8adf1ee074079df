//! Three members of this binary on loopback addresses, started, formatted and initialized as the operator would.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use taskstore_api::tls::ClientTls;
use taskstore_api::v1::admin_client::AdminClient;
use taskstore_api::{Endpoints, Trust, admin, v1};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::config::Ports;
use crate::process;
use crate::raft::certs::Authority;
use crate::raft::loopback::own_address;
use crate::raft::transport::tls::member_name;
use crate::server::client_tls::{CERTIFICATE_FILE, KEY_FILE};

mod learner;
pub mod look;

const MEMBERS: u64 = 3;
const INCARNATION: u16 = 1;
/// In the certificates of the client ports.
const SERVER_NAME: &str = "localhost";
/// For a member to answer, or the store to have a leader.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// For a member with a great many tasks to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(300);
/// For a killed member to be gone.
const END_TIMEOUT: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(20);

pub struct LocalStore {
    dir: PathBuf,
    keep: bool,
    cluster_id: String,
    authority: Authority,
    operator: ClientTls,
    members: Vec<Member>,
}

struct Member {
    id: u64,
    volume_uid: String,
    address: Ipv4Addr,
    process: Child,
}

impl LocalStore {
    pub async fn start(base: &Path, keep: bool) -> anyhow::Result<LocalStore> {
        let dir = base.join(format!("taskstore-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let cluster_id = Uuid::new_v4().to_string();
        let authority = Authority::new(&cluster_id)?;
        let operator = authority.operator()?;
        let operator = ClientTls {
            ca_pem: operator.ca_pem,
            cert_pem: operator.certificate_pem,
            key_pem: operator.key_pem,
        };
        let mut store = LocalStore {
            dir,
            keep,
            cluster_id,
            authority,
            operator,
            members: Vec::new(),
        };
        for number in 1..=MEMBERS {
            store.add(number)?;
        }
        store
            .bootstrap()
            .await
            .with_context(|| store.last_words())?;
        Ok(store)
    }

    fn add(&mut self, number: u64) -> anyhow::Result<()> {
        let id = (u64::from(INCARNATION) << 32) + number;
        let tls_dir = self.tls_dir(id);
        self.authority.member(id)?.write_to(&tls_dir)?;
        let client = self.authority.issue(vec![SERVER_NAME.into()])?;
        client.write_pair(&tls_dir, CERTIFICATE_FILE, KEY_FILE)?;
        let address = own_address();
        let volume_uid = Uuid::new_v4().to_string();
        let process = self.spawn(id, &volume_uid, address)?;
        self.members.push(Member {
            id,
            volume_uid,
            address,
            process,
        });
        Ok(())
    }

    fn tls_dir(&self, id: u64) -> PathBuf {
        self.dir.join(format!("m{}-tls", id & u64::from(u32::MAX)))
    }

    fn data_dir(&self, id: u64) -> PathBuf {
        self.dir.join(format!("m{}", id & u64::from(u32::MAX)))
    }

    fn log_file(&self, id: u64) -> PathBuf {
        self.dir.join(format!("m{}.log", id & u64::from(u32::MAX)))
    }

    fn spawn(&self, id: u64, volume_uid: &str, address: Ipv4Addr) -> anyhow::Result<Child> {
        std::fs::create_dir_all(self.data_dir(id))?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file(id))?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let child = Command::new(program)
            .arg("member")
            .arg("--data-dir")
            .arg(self.data_dir(id))
            .arg("--tls-dir")
            .arg(self.tls_dir(id))
            .args(["--cluster-id", &self.cluster_id])
            .args(["--incarnation", &INCARNATION.to_string()])
            .args(["--member-id", &id.to_string()])
            .args(["--volume-uid", volume_uid])
            .args(["--name", &address.to_string()])
            .args(["--listen-ip", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        child.context("cannot start a member")
    }

    async fn bootstrap(&self) -> anyhow::Result<()> {
        for member in &self.members {
            self.format(member).await?;
        }
        let voters: Vec<_> = self
            .members
            .iter()
            .map(|member| v1::Member {
                id: member.id,
                name: member.address.to_string(),
            })
            .collect();
        for member in &self.members {
            let mut admin = self.admin(member).await?;
            let request = v1::InitializeRequest {
                voters: voters.clone(),
            };
            admin.initialize(request).await.context("initialize")?;
        }
        self.leader().await.map(drop)
    }

    async fn format(&self, member: &Member) -> anyhow::Result<()> {
        let identity = v1::Identity {
            cluster_id: self.cluster_id.clone(),
            incarnation: INCARNATION.into(),
            member_id: member.id,
            volume_uid: member.volume_uid.clone(),
        };
        let request = v1::FormatRequest {
            identity: Some(identity),
        };
        let mut admin = self.admin(member).await?;
        admin.format(request).await.context("format")?;
        Ok(())
    }

    /// Dials until the member listens.
    async fn admin(&self, member: &Member) -> anyhow::Result<AdminClient<Channel>> {
        let address = format!("{}:{}", member.address, Ports::default().admin);
        let name = member_name(&self.cluster_id, member.id);
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match admin::connect(&address, &name, self.operator.clone()).await {
                Ok(client) => return Ok(client),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => sleep(ASK_AGAIN).await,
            }
        }
    }

    /// The index of the member that leads, once there is one that leads and is ready.
    async fn leader(&self) -> anyhow::Result<usize> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            for (index, member) in self.members.iter().enumerate() {
                let status = self.status(member).await;
                if status
                    .is_ok_and(|status| status.ready && status.raft.is_some_and(|raft| raft.leads))
                {
                    return Ok(index);
                }
            }
            if Instant::now() > deadline {
                bail!("no member leads after {} s", START_TIMEOUT.as_secs());
            }
            sleep(ASK_AGAIN).await;
        }
    }

    async fn status(&self, member: &Member) -> anyhow::Result<v1::MemberStatus> {
        let address = format!("{}:{}", member.address, Ports::default().admin);
        let name = member_name(&self.cluster_id, member.id);
        let mut admin = admin::connect(&address, &name, self.operator.clone()).await?;
        let mut stream = admin
            .watch_status(v1::WatchStatusRequest {})
            .await?
            .into_inner();
        stream
            .message()
            .await?
            .context("the status stream ended at once")
    }

    /// The members' client ports, the leader's first.
    pub async fn endpoints(&self) -> anyhow::Result<Endpoints> {
        let leader = self.leader().await?;
        let mut addresses: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{}:{}", member.address, Ports::default().client))
            .collect();
        addresses.rotate_left(leader);
        Ok(Endpoints {
            addresses,
            trust: Trust::Tls {
                ca_pem: self.authority.ca_pem(),
                server_name: Some(SERVER_NAME.into()),
            },
        })
    }

    pub async fn snapshot_leader(&self) -> anyhow::Result<v1::SnapshotResponse> {
        let leader = self.leader().await?;
        self.snapshot(leader).await
    }

    pub async fn snapshot(&self, index: usize) -> anyhow::Result<v1::SnapshotResponse> {
        let mut admin = self.admin(&self.members[index]).await?;
        Ok(admin.snapshot(v1::SnapshotRequest {}).await?.into_inner())
    }

    /// Kills the leader's process, as a crash would, and says which member it was.
    pub async fn kill_leader(&mut self) -> anyhow::Result<usize> {
        let leader = self.leader().await?;
        self.kill(leader).await?;
        Ok(leader)
    }

    pub async fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        Ok(self.members[index].process.kill().await?)
    }

    /// The index of a member that does not lead.
    pub async fn follower(&self) -> anyhow::Result<usize> {
        Ok((self.leader().await? + 1) % MEMBERS as usize)
    }

    pub async fn start_again(&mut self, index: usize) -> anyhow::Result<()> {
        let Member {
            id,
            volume_uid,
            address,
            ..
        } = &self.members[index];
        let process = self.spawn(*id, volume_uid, *address)?;
        self.members[index].process = process;
        self.ready(index).await.map(drop)
    }

    async fn ready(&self, index: usize) -> anyhow::Result<v1::MemberStatus> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            match self.status(&self.members[index]).await {
                Ok(status) if status.ready => return Ok(status),
                _ if Instant::now() > deadline => {
                    bail!("a member is not ready\n{}", self.last_words())
                }
                _ => sleep(ASK_AGAIN).await,
            }
        }
    }

    pub fn members(&self) -> usize {
        self.members.len()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// From now on the most memory held is counted anew, where the system allows it.
    pub fn forget_resident_bytes(&self) {
        for member in &self.members {
            if let Some(pid) = member.process.id() {
                let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
            }
        }
    }

    /// The most memory that any member has held since it was last forgotten.
    pub fn resident_bytes_max(&self) -> u64 {
        self.members
            .iter()
            .filter_map(|member| process::memory(member.process.id()?).ok())
            .map(|memory| memory.resident_bytes_max)
            .max()
            .unwrap_or(0)
    }

    /// The end of each member's log: what it said before things went wrong.
    fn last_words(&self) -> String {
        let mut words = String::new();
        for member in &self.members {
            let text = std::fs::read_to_string(self.log_file(member.id)).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(5)..].join("\n  ");
            words += &format!("member {}:\n  {last}\n", member.id & u64::from(u32::MAX));
        }
        words
    }
}

impl Drop for LocalStore {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _ = member.process.start_kill();
        }
        // The directory must not be removed under live processes.
        let patience = std::time::Instant::now() + END_TIMEOUT;
        for member in &mut self.members {
            while matches!(member.process.try_wait(), Ok(None))
                && std::time::Instant::now() < patience
            {
                std::thread::sleep(ASK_AGAIN);
            }
        }
        if self.keep {
            eprintln!("kept {}", self.dir.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}
