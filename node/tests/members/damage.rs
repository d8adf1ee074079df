//! Disks that must not start a vote, and the single member of a laptop.

use std::fs;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use taskstore::config::Ports;
use taskstore::raft::loopback::own_address;
use taskstore_api::{Endpoints, TaskStoreClient, Trust, v1};

use crate::harness::{Cluster, PATIENCE};
use crate::tasks::create;

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_a_wiped_and_a_damaged_volume_start_no_raft_but_report() {
    let mut cluster = Cluster::serving(3).await;
    let client = cluster.client(&[0, 1, 2]).with_deadline(PATIENCE);
    for number in 0..50 {
        client.create(create(&format!("d{number}"))).await.unwrap();
    }
    let right = cluster.members[0].volume_uid.clone();
    cluster.kill(0);
    cluster.members[0].volume_uid = "another".into();
    cluster.start(0);
    let status = cluster
        .until(0, |status| status.phase() == v1::MemberPhase::Damaged)
        .await;
    assert!(status.raft.is_none() && !status.damage.is_empty());
    cluster.kill(0);
    cluster.members[0].volume_uid = right;
    let data = cluster.data_dir(0);
    let (mut directories, mut files) = (vec![data], Vec::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path)
            } else {
                files.push(path)
            }
        }
    }
    files.retain(|path| path.to_string_lossy().contains("segment"));
    files.sort();
    let mut flipped = false;
    for file in files {
        let mut bytes = fs::read(&file).unwrap();
        // The payload of a task stands in the middle of an acknowledged frame.
        if let Some(at) = bytes.windows(2).position(|two| two == b"d1") {
            bytes[at] ^= 1;
            fs::write(&file, bytes).unwrap();
            flipped = true;
            break;
        }
    }
    assert!(flipped, "no frame with the task was found");
    cluster.start(0);
    let status = cluster
        .until(0, |status| status.phase() == v1::MemberPhase::Damaged)
        .await;
    assert!(status.raft.is_none(), "a damaged member starts no Raft");
    cluster.kill(0);
    fs::remove_dir_all(cluster.data_dir(0)).unwrap();
    cluster.start(0);
    let status = cluster
        .until(0, |status| status.phase() == v1::MemberPhase::Blank)
        .await;
    assert!(status.raft.is_none(), "a wiped member does not vote");
    client.create(create("after")).await.unwrap();
}

pub fn dev(dir: &std::path::Path, address: Ipv4Addr) -> Child {
    Command::new(env!("CARGO_BIN_EXE_taskstore"))
        .args(["dev", "--listen-ip", &address.to_string(), "--data-dir"])
        .arg(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

pub fn dev_client(address: Ipv4Addr) -> TaskStoreClient {
    let addresses = vec![format!("{address}:{}", Ports::default().client)];
    let client = TaskStoreClient::connect(&Endpoints {
        addresses,
        trust: Trust::Plain,
    });
    client.unwrap().with_deadline(PATIENCE)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_on_a_laptop_outlives_a_kill() {
    let (dir, address) = (tempfile::tempdir().unwrap(), own_address());
    let client = dev_client(address);
    let mut process = dev(dir.path(), address);
    let created = client.create(create("kept")).await;
    process.kill().unwrap();
    process.wait().unwrap();
    created.unwrap();
    let mut process = dev(dir.path(), address);
    let get = v1::GetRequest {
        namespace: "shop".into(),
        id: "kept".into(),
        view: 0,
    };
    let got = client.get(get).await;
    process.kill().unwrap();
    process.wait().unwrap();
    assert_eq!(got.unwrap().state(), v1::TaskState::Available);
}
