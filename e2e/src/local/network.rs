//! The network: one namespace per node, joined by a bridge in a namespace of its own. The machine
//! gets a single device with addresses and routes of our range, and loses them with that device.

use super::layout::{
    ALL, CONTROL, CONTROL_NAME, FABRIC, HOST, HOST_DEVICE, NODE_NETWORK_BITS, S3, S3_NAME,
    SERVICES, WORKERS, Worker, namespace, namespace_file,
};
use crate::process::{feed, line, program, run};
use anyhow::{Result, bail};

/// The device by which a node reaches the others.
const UPLINK: &str = "uplink";
const CUT_TABLE: &str = "taskstore_cut";

/// Builds everything but the workers' own namespaces.
pub async fn create() -> Result<()> {
    refuse_overlap().await?;
    let fabric = namespace(FABRIC);
    run(&format!("ip netns add {fabric}")).await?;
    run(&format!("ip -n {fabric} link set lo up")).await?;
    run(&format!("ip -n {fabric} link add bridge type bridge")).await?;
    run(&format!("ip -n {fabric} link set bridge up")).await?;

    attach(CONTROL_NAME, CONTROL).await?;
    route_to_pods(CONTROL_NAME, |_| true).await?;
    let control = namespace(CONTROL_NAME);
    run(&format!(
        "ip -n {control} route add {SERVICES} dev {UPLINK}"
    ))
    .await?;

    create_s3().await?;

    let own = std::process::id();
    run(&format!(
        "ip -n {fabric} link add host type veth peer name {HOST_DEVICE} netns {own}"
    ))
    .await?;
    run(&format!("ip -n {fabric} link set host master bridge up")).await?;
    run(&format!("ip link set {HOST_DEVICE} addrgenmode none")).await?;
    run(&format!(
        "ip address add {HOST}/{NODE_NETWORK_BITS} dev {HOST_DEVICE}"
    ))
    .await?;
    run(&format!("ip link set {HOST_DEVICE} up")).await?;
    for worker in &WORKERS {
        run(&format!(
            "ip route add {} via {}",
            worker.pods, worker.address
        ))
        .await?;
    }
    run(&format!("ip route add {SERVICES} via {CONTROL}")).await?;
    Ok(())
}

/// The S3 server's namespace. It speaks to nobody but those who ask it.
pub async fn create_s3() -> Result<()> {
    attach(S3_NAME, S3).await?;
    route_to_pods(S3_NAME, |_| true).await
}

/// A worker's namespace, as after a reboot: no rule, device or address of an earlier life.
pub async fn create_worker(worker: &Worker) -> Result<()> {
    attach(worker.name, worker.address).await?;
    let own = namespace(worker.name);
    route_to_pods(worker.name, |other| other != worker).await?;
    // Node processes reach services too: kube-proxy rewrites the packet, but it needs a way out first.
    run(&format!("ip -n {own} route add {SERVICES} dev {UPLINK}")).await?;
    Ok(())
}

/// Takes a node's cable away; nothing that its processes still send is heard by anyone.
pub async fn unplug(name: &str) -> Result<()> {
    let fabric = namespace(FABRIC);
    if run(&format!("ip -n {fabric} link show {name}"))
        .await
        .is_ok()
    {
        run(&format!("ip -n {fabric} link delete {name}")).await?;
    }
    Ok(())
}

pub async fn remove_namespace(name: &str) -> Result<()> {
    if namespace_file(name).exists() {
        run(&format!("ip netns delete {}", namespace(name))).await?;
    }
    Ok(())
}

/// Drops every packet between a node and all others, in both directions, until `mend`.
pub async fn cut(worker: &Worker) -> Result<()> {
    mend(worker).await?;
    let rules = format!(
        "table inet {CUT_TABLE} {{
           chain arriving {{ type filter hook prerouting priority -400; iifname {UPLINK} ip saddr {ALL} drop; }}
           chain leaving {{ type filter hook postrouting priority 400; oifname {UPLINK} ip daddr {ALL} drop; }}
         }}"
    );
    feed(&mut inside(worker.name, &["nft", "-f", "-"]), &rules).await?;
    Ok(())
}

pub async fn mend(worker: &Worker) -> Result<()> {
    let rules = format!("table inet {CUT_TABLE}\ndelete table inet {CUT_TABLE}\n");
    feed(&mut inside(worker.name, &["nft", "-f", "-"]), &rules).await?;
    Ok(())
}

/// A program in a node's network. Not `ip netns exec`: that hides the cgroup mounts.
pub fn inside(name: &str, arguments: &[&str]) -> tokio::process::Command {
    let net = format!("--net={}", namespace_file(name).display());
    program(
        "nsenter",
        std::iter::once(net.as_str()).chain(arguments.iter().copied()),
    )
}

async fn attach(name: &str, address: &str) -> Result<()> {
    let (fabric, own) = (namespace(FABRIC), namespace(name));
    run(&format!("ip netns add {own}")).await?;
    run(&format!("ip -n {own} link set lo up")).await?;
    run(&format!(
        "ip -n {fabric} link add {name} type veth peer name {UPLINK} netns {own}"
    ))
    .await?;
    run(&format!("ip -n {fabric} link set {name} master bridge up")).await?;
    run(&format!(
        "ip -n {own} address add {address}/{NODE_NETWORK_BITS} dev {UPLINK}"
    ))
    .await?;
    run(&format!("ip -n {own} link set {UPLINK} up")).await?;
    // The last is there only with br_netfilter: without it a pod cannot reach a service that is served
    // by its neighbour on the same bridge.
    let settings = "cd /proc/sys/net && echo 1 >ipv4/ip_forward || exit 1
        [ ! -e ipv6/conf ] || echo 1 >ipv6/conf/all/disable_ipv6 || exit 1
        [ ! -e bridge ] || echo 1 >bridge/bridge-nf-call-iptables || exit 1";
    crate::process::output(&mut inside(name, &["sh", "-c", settings])).await?;
    Ok(())
}

/// Pods keep their addresses on their way to other machines.
async fn route_to_pods(name: &str, of: impl Fn(&Worker) -> bool) -> Result<()> {
    let own = namespace(name);
    for worker in WORKERS.iter().filter(|worker| of(worker)) {
        let (pods, node) = (worker.pods, worker.address);
        run(&format!("ip -n {own} route add {pods} via {node}")).await?;
    }
    Ok(())
}

/// The machine must not use our range itself.
async fn refuse_overlap() -> Result<()> {
    let taken =
        crate::process::output(&mut line(&format!("ip -4 route show table all root {ALL}")))
            .await?;
    let taken: Vec<&str> = taken
        .lines()
        .filter(|route| !route.contains(HOST_DEVICE) && !route.starts_with("default"))
        .collect();
    if !taken.is_empty() {
        bail!(
            "this machine already routes addresses of {ALL}, which the local cluster needs:\n{}",
            taken.join("\n")
        );
    }
    Ok(())
}
