# The control plane's first process: keeps its daemons running. DNS and the provisioner are here
# and not in pods, so that any worker may be killed without taking them along.
. "$STATE/config/supervise.sh"
PKI=$STATE/pki
KUBERNETES=$STATE/bin/kubernetes

# The cluster lives no longer than the machine's uptime, so nothing is gained by fsync here, and
# the disk is left to what is being tested.
supervise etcd "$KUBERNETES" etcd --name=control --data-dir="$HOME_FOLDER/etcd" --unsafe-no-fsync \
  --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
  --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
  --initial-cluster=control=http://127.0.0.1:2380 --log-level=warn

supervise kube-apiserver "$KUBERNETES" kube-apiserver \
  --advertise-address="$ADDRESS" --secure-port=6443 --etcd-servers=http://127.0.0.1:2379 \
  --client-ca-file="$PKI/ca.crt" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \
  --service-account-key-file="$PKI/tokens.pub" --service-account-signing-key-file="$PKI/tokens.key" \
  --service-cluster-ip-range="$SERVICES" --authorization-mode=Node,RBAC \
  --enable-admission-plugins=NodeRestriction --kubelet-preferred-address-types=InternalIP \
  --kubelet-certificate-authority="$PKI/ca.crt" \
  --kubelet-client-certificate="$PKI/apiserver-to-kubelet.crt" --kubelet-client-key="$PKI/apiserver-to-kubelet.key" \
  --audit-policy-file="$STATE/config/audit.yaml" --audit-log-path="$HOME_FOLDER/logs/audit.log" \
  --allow-privileged=true --profiling=false

supervise kube-controller-manager "$KUBERNETES" kube-controller-manager \
  --kubeconfig="$PKI/kube-controller-manager.kubeconfig" \
  --root-ca-file="$PKI/ca.crt" --service-account-private-key-file="$PKI/tokens.key" \
  --use-service-account-credentials=true --leader-elect=false --bind-address=127.0.0.1 \
  --node-monitor-period=2s --node-monitor-grace-period=25s --profiling=false

supervise kube-scheduler "$KUBERNETES" kube-scheduler --kubeconfig="$PKI/kube-scheduler.kubeconfig" \
  --leader-elect=false --bind-address=127.0.0.1 --profiling=false

supervise coredns "$STATE/bin/coredns" -conf "$HOME_FOLDER/Corefile"

# This kube-proxy serves the machine itself, whose route to all services leads here. It has a /run
# of its own, because iptables keeps its lock there.
supervise kube-proxy unshare --mount --propagation slave sh -c \
  'mount -t tmpfs -o mode=755 control /run && exec "$@"' sh \
  "$KUBERNETES" kube-proxy --config="$HOME_FOLDER/kube-proxy.yaml"

supervise local-provisioner "$KUBERNETES" local-provisioner \
  --kubeconfig="$PKI/local-provisioner.kubeconfig" --volumes="$STATE/volumes"
wait
