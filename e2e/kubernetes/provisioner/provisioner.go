// Package provisioner makes the local cluster's volumes: a folder per claim on the node that the
// scheduler chose, or, for classes with `sized: "true"`, a file system of exactly the asked size.
package provisioner

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

// Name is what a StorageClass puts into `provisioner`.
const Name = "taskstore.dev/local"

const (
	selectedNode  = "volume.kubernetes.io/selected-node"
	provisionedBy = "pv.kubernetes.io/provisioned-by"
)

type controller struct {
	client  kubernetes.Interface
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	disk    disk
	// Keys are `claim/<namespace>/<name>` and `volume/<name>`: one worker, so that a claim and its
	// volume are never handled at the same time.
	queue workqueue.TypedRateLimitingInterface[key]
}

type key struct{ kind, namespace, name string }

// Main runs until SIGTERM.
func Main() int {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	root := flag.String("volumes", "", "folder that holds one folder per node and volume")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kubeconfig, *root); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func run(ctx context.Context, kubeconfig, root string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := informers.NewSharedInformerFactory(client, 0)
	c := &controller{
		client:  client,
		claims:  factory.Core().V1().PersistentVolumeClaims().Lister(),
		volumes: factory.Core().V1().PersistentVolumes().Lister(),
		classes: factory.Storage().V1().StorageClasses().Lister(),
		disk:    disk{root: root},
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[key](100*time.Millisecond, 5*time.Second)),
	}
	watch := func(informer cache.SharedIndexInformer, kind string) error {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { c.enqueue(kind, object) },
			UpdateFunc: func(_, object any) { c.enqueue(kind, object) },
		})
		return err
	}
	if err := watch(factory.Core().V1().PersistentVolumeClaims().Informer(), "claim"); err != nil {
		return err
	}
	if err := watch(factory.Core().V1().PersistentVolumes().Informer(), "volume"); err != nil {
		return err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	go func() { <-ctx.Done(); c.queue.ShutDown() }()
	for c.next(ctx) {
	}
	return nil
}

func (c *controller) enqueue(kind string, object any) {
	name, err := cache.ObjectToName(object)
	if err == nil {
		c.queue.Add(key{kind, name.Namespace, name.Name})
	}
}

func (c *controller) next(ctx context.Context) bool {
	item, closed := c.queue.Get()
	if closed {
		return false
	}
	defer c.queue.Done(item)
	handle := c.claim
	if item.kind == "volume" {
		handle = c.volume
	}
	if err := handle(ctx, item); err != nil && !errors.IsNotFound(err) {
		klog.ErrorS(err, "Will try again", "item", item)
		c.queue.AddRateLimited(item)
		return true
	}
	c.queue.Forget(item)
	return true
}

// claim provisions for a claim whose pod has been scheduled, and grows a bound one.
func (c *controller) claim(ctx context.Context, item key) error {
	claim, err := c.claims.PersistentVolumeClaims(item.namespace).Get(item.name)
	if err != nil || claim.DeletionTimestamp != nil || claim.Spec.StorageClassName == nil {
		return err
	}
	class, err := c.classes.Get(*claim.Spec.StorageClassName)
	if err != nil || class.Provisioner != Name {
		return err
	}
	if claim.Status.Phase == core.ClaimBound {
		return c.grow(ctx, claim)
	}
	node := claim.Annotations[selectedNode]
	if claim.Spec.VolumeName != "" || node == "" {
		return nil
	}
	name := "pvc-" + string(claim.UID)
	if _, err := c.volumes.Get(name); err == nil {
		return nil
	}
	size := claim.Spec.Resources.Requests[core.ResourceStorage]
	path, err := c.disk.create(node, name, size.Value(), class.Parameters["sized"] == "true")
	if err != nil {
		return err
	}
	_, err = c.client.CoreV1().PersistentVolumes().Create(ctx, describe(claim, class, name, node, path), meta.CreateOptions{})
	if errors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func describe(claim *core.PersistentVolumeClaim, class *storage.StorageClass, name, node, path string) *core.PersistentVolume {
	mode := core.PersistentVolumeFilesystem
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{provisionedBy: Name}},
		Spec: core.PersistentVolumeSpec{
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: *class.ReclaimPolicy,
			StorageClassName:              class.Name,
			VolumeMode:                    &mode,
			PersistentVolumeSource:        core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: path}},
			ClaimRef: &core.ObjectReference{
				Kind: "PersistentVolumeClaim", APIVersion: "v1",
				Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{{
				MatchExpressions: []core.NodeSelectorRequirement{{
					Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{node},
				}},
			}}}},
		},
	}
}

// grow does what an external resizer does: the disk first, then the volume, then the claim's status.
func (c *controller) grow(ctx context.Context, claim *core.PersistentVolumeClaim) error {
	asked := claim.Spec.Resources.Requests[core.ResourceStorage]
	has := claim.Status.Capacity[core.ResourceStorage]
	if asked.Cmp(has) <= 0 {
		return nil
	}
	volume, err := c.volumes.Get(claim.Spec.VolumeName)
	if err != nil || volume.Spec.Local == nil {
		return err
	}
	if err := c.disk.grow(volume.Spec.Local.Path, asked.Value()); err != nil {
		return err
	}
	volume = volume.DeepCopy()
	volume.Spec.Capacity[core.ResourceStorage] = asked
	if _, err := c.client.CoreV1().PersistentVolumes().Update(ctx, volume, meta.UpdateOptions{}); err != nil {
		return err
	}
	claim = claim.DeepCopy()
	claim.Status.Capacity[core.ResourceStorage] = asked
	claim.Status.Conditions = nil
	_, err = c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, claim, meta.UpdateOptions{})
	return err
}

// volume removes the storage of a released volume whose class says Delete.
func (c *controller) volume(ctx context.Context, item key) error {
	volume, err := c.volumes.Get(item.name)
	if err != nil || volume.Annotations[provisionedBy] != Name || volume.Spec.Local == nil {
		return err
	}
	if volume.Status.Phase != core.VolumeReleased ||
		volume.Spec.PersistentVolumeReclaimPolicy != core.PersistentVolumeReclaimDelete {
		return nil
	}
	if err := c.disk.remove(volume.Spec.Local.Path); err != nil {
		return err
	}
	return c.client.CoreV1().PersistentVolumes().Delete(ctx, volume.Name, meta.DeleteOptions{})
}
