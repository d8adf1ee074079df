# The first process of a worker node: makes the node's own view of the machine, then keeps its
# three daemons running. Everything here ends with this process, as with a power cut: its process,
# mount and network namespaces hold all there is of the node but its disk.
. "$STATE/config/supervise.sh"
hostname "$NODE"

# The node has its own /var/lib, /var/log and /run, so daemons keep their default places, and no
# kubelet tidies up the logs of another's pods. The cluster's folder is bound first, or it would be
# hidden.
mkdir -p "$HOME_FOLDER/var-lib/"{kubelet,containerd,cni,taskstore-local} "$HOME_FOLDER/var-log"
mount --bind "$HOME_FOLDER/var-log" /var/log
mount --rbind "$STATE" "$HOME_FOLDER/var-lib/taskstore-local"
mount --rbind "$HOME_FOLDER/var-lib" /var/lib
mount -t tmpfs -o mode=755 "$NODE" /run
rm -f "$HOME_FOLDER/containerd.sock"

supervise containerd containerd --config "$HOME_FOLDER/containerd.toml"
until [ -S "$HOME_FOLDER/containerd.sock" ]; do sleep 0.05; done
supervise kubelet "$STATE/bin/kubernetes" kubelet \
  --config="$HOME_FOLDER/kubelet.yaml" \
  --kubeconfig="$HOME_FOLDER/kubelet.kubeconfig" \
  --hostname-override="$NODE" --node-ip="$ADDRESS" \
  --node-labels="topology.kubernetes.io/region=local,topology.kubernetes.io/zone=$ZONE"
supervise kube-proxy "$STATE/bin/kubernetes" kube-proxy --config="$HOME_FOLDER/kube-proxy.yaml"
wait
