//! Members as processes on loopback addresses, formatted and initialized over the admin port as the operator does it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use taskstore::config::Ports;
use taskstore::raft::certs::Authority;
use taskstore::raft::loopback::own_address;
use taskstore::server::client_tls::{CERTIFICATE_FILE, KEY_FILE};
use taskstore_api::v1;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

pub const CLUSTER: &str = "6b6cbf1e-6f58-4a3c-9d0c-0d4f3c1c2d11";
/// Generous: the machine may be busy with other work.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// In the certificates of the client ports.
pub const SERVER_NAME: &str = "localhost";
pub const ASK_AGAIN: Duration = Duration::from_millis(20);

pub struct Cluster {
    pub dir: TempDir,
    pub authority: Authority,
    pub members: Vec<Process>,
}

pub struct Process {
    pub id: u64,
    pub volume_uid: String,
    /// The number of the member that the volume was formatted for.
    pub volume: u64,
    pub address: Ipv4Addr,
    pub child: Child,
}

pub fn member_name(id: u64) -> String {
    format!("m{}.i{}.{CLUSTER}.taskstore", id & 0xffff_ffff, id >> 32)
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
        self.add_member((1 << 32) + number)
    }

    /// The same, of a later incarnation.
    pub fn add_member(&mut self, id: u64) -> usize {
        let number = self.members.len() as u64 + 1;
        let (address, volume_uid) = (own_address(), format!("volume-{number}"));
        self.certify(id);
        let child = self.spawn(id, &volume_uid, number, address, &[]);
        self.members.push(Process {
            id,
            volume_uid,
            volume: number,
            address,
            child,
        });
        self.members.len() - 1
    }

    fn tls_dir(&self, id: u64) -> PathBuf {
        self.dir.path().join(format!("{id}-tls"))
    }

    fn certify(&self, id: u64) {
        let tls = self.tls_dir(id);
        self.authority.member(id).unwrap().write_to(&tls).unwrap();
        let client = self.authority.issue(vec![SERVER_NAME.into()]).unwrap();
        client.write_pair(&tls, CERTIFICATE_FILE, KEY_FILE).unwrap();
    }

    pub fn data_dir(&self, index: usize) -> PathBuf {
        self.volume_dir(self.members[index].volume)
    }

    fn volume_dir(&self, volume: u64) -> PathBuf {
        self.dir.path().join(format!("m{volume}"))
    }

    pub fn output_path(&self, volume: u64) -> PathBuf {
        self.dir.path().join(format!("m{volume}.out"))
    }

    fn spawn(
        &self,
        id: u64,
        volume_uid: &str,
        volume: u64,
        address: Ipv4Addr,
        more: &[String],
    ) -> Child {
        fs::create_dir_all(self.volume_dir(volume)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_taskstore"));
        command.args(self.arguments(id, volume_uid, volume, address));
        self.run(command.args(more), volume)
    }

    fn arguments(&self, id: u64, volume_uid: &str, volume: u64, at: Ipv4Addr) -> Vec<OsString> {
        let (address, incarnation) = (at.to_string(), (id >> 32).to_string());
        let id_text = id.to_string();
        let mut arguments: Vec<OsString> = vec!["member".into(), "--data-dir".into()];
        arguments.push(self.volume_dir(volume).into());
        arguments.push("--tls-dir".into());
        arguments.push(self.tls_dir(id).into());
        let rest = [
            ["--cluster-id", CLUSTER],
            ["--incarnation", &incarnation],
            ["--member-id", &id_text],
            ["--volume-uid", volume_uid],
            ["--name", &address],
            ["--listen-ip", &address],
            ["--log-budget-bytes", "67108864"],
        ];
        arguments.extend(rest.as_flattened().iter().map(OsString::from));
        arguments
    }

    /// Everything that it says is kept with the volume's number.
    fn run(&self, command: &mut Command, volume: u64) -> Child {
        let log = self.output_path(volume);
        let log = File::options().create(true).append(true).open(log).unwrap();
        command
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
        self.start_with(index, &[]);
    }

    fn start_with(&mut self, index: usize, more: &[String]) {
        let member = &self.members[index];
        let child = self.spawn(
            member.id,
            &member.volume_uid,
            member.volume,
            member.address,
            more,
        );
        self.members[index].child = child;
    }

    /// Runs `command`, with the arguments of another member behind its own, in place of the process.
    pub fn start_within(&mut self, index: usize, id: u64, command: &mut Command) {
        self.certify(id);
        self.members[index].id = id;
        let member = &self.members[index];
        let (uid, volume) = (&member.volume_uid, member.volume);
        command
            .arg(env!("CARGO_BIN_EXE_taskstore"))
            .args(self.arguments(id, uid, volume, member.address));
        self.members[index].child = self.run(command, volume);
    }

    /// Starts another member on the volume, which is to take it over.
    pub fn rewrite(&mut self, index: usize, from: u64, id: u64) {
        self.certify(id);
        self.members[index].id = id;
        self.start_with(index, &[format!("--rewrite-from={from}")]);
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

    pub fn client_address(&self) -> String {
        format!("{}:{}", self.address, Ports::default().client)
    }

    pub fn identity(&self) -> v1::Identity {
        let volume_uid = self.volume_uid.clone();
        v1::Identity {
            cluster_id: CLUSTER.into(),
            incarnation: (self.id >> 32) as u32,
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
