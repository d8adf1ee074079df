//! Stories told as scripts: each command line starts with `>`, what follows is what the operator did.
//! `UPDATE=1 cargo test -p taskstore-operator --test scenarios` writes the transcripts anew; read the diff.

mod world;

use std::path::Path;

use crds::MemberId;
use crds::cluster::VolumePolicy;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use operator::observe::{Drift, Filled, Life, PodPhase, Restore, VolumeState};
use world::{Disk, World};

fn member(word: &str) -> MemberId {
    let later = word.strip_prefix('i').and_then(|word| word.split_once('m'));
    let (incarnation, number) = later.unwrap_or(("1", word.trim_start_matches('m')));
    MemberId::new(
        incarnation
            .parse()
            .expect("a later member is called i2m4, …"),
        number.parse().expect("a member is called m1, m2, …"),
    )
}

fn command(world: &mut World, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let policy = |word: &str| {
        if words.contains(&word) {
            VolumePolicy::Delete
        } else {
            VolumePolicy::Retain
        }
    };
    match words.as_slice() {
        ["create", size, ..] => {
            let size = size.trim_start_matches("size=").parse().expect("a size");
            world.create(size, policy("deleted=Delete"), policy("scaled=Delete"));
        }
        ["restore", size] => {
            let size = size.trim_start_matches("size=").parse().expect("a size");
            world.create_restored(size);
        }
        ["forget", "restore"] => world.objects.restore = None,
        ["fail", "restore"] => world.objects.restore = Some(Restore::Ended),
        ["bucket", "fails", words @ ..] => {
            world.bucket_says = Some(Filled::Failing(words.join(" ")));
        }
        ["bucket", "refuses", words @ ..] => {
            world.bucket_says = Some(Filled::Refused(words.join(" ")));
        }
        ["bucket", "is", "good"] => world.bucket_says = None,
        ["run"] => {
            let mut lines = world.run();
            lines.extend(world.waits());
            return lines;
        }
        ["step"] => {
            world.turn();
            let seen = world.look().expect("there is a cluster");
            return world.pass(&seen, usize::MAX);
        }
        ["show"] => return world.summary(),
        ["waits"] => return world.waits(),
        ["scale", size] => {
            let replicas = size.parse().expect("a size");
            world.edit(|cluster| cluster.spec.replicas = replicas);
        }
        ["pause"] => world.edit(|cluster| cluster.spec.paused = true),
        ["unpause"] => world.edit(|cluster| cluster.spec.paused = false),
        ["acknowledge"] => world.acknowledge(),
        ["acknowledge", nonce] => {
            let nonce = Some((*nonce).to_owned()).filter(|nonce| nonce != "nothing");
            world.edit(|cluster| cluster.spec.recovery.acknowledge = nonce);
        }
        ["accept", members @ ..] => {
            let members = members.iter().map(|word| member(word)).collect();
            world.edit(|cluster| cluster.spec.recovery.accept_unconfirmed = members);
        }
        ["hibernate"] => world.edit(|cluster| cluster.spec.hibernated = true),
        ["rouse"] => world.edit(|cluster| cluster.spec.hibernated = false),
        ["image", image] => {
            let image = (*image).to_owned();
            world.edit(|cluster| cluster.spec.image = Some(image));
        }
        ["no", "image"] => world.edit(|cluster| cluster.spec.image = None),
        ["template", image, "runs", command] => world.set_template(image, command),
        ["no", "template"] => world.edit(|cluster| cluster.spec.template = None),
        ["cpu", cpus] => {
            let cpu = Quantity((*cpus).to_owned());
            world.edit(|cluster| {
                cluster.spec.resources.requests.insert("cpu".into(), cpu);
            });
        }
        // Another operator than ours made the pod, with another renderer.
        ["rendered", who, "by", revision, "as", hash] => {
            let pod = world.pod_mut(member(who));
            pod.renderer_revision = revision.parse().expect("a revision");
            pod.template_hash = (*hash).to_owned();
        }
        ["upgrade", "operator", "with", image] => {
            world.objects.default_image = (*image).to_owned();
            world.replace_operator();
        }
        ["pods"] => {
            let pods = world.objects.pods.values();
            return pods
                .map(|pod| {
                    let trouble = pod.trouble.as_ref().map(|what| format!(" {what:?}"));
                    let app = pod.app.as_ref().map(|app| {
                        let trouble = app.trouble.as_deref().unwrap_or("Ready");
                        let member = pod.container.as_deref().unwrap_or("not there");
                        format!(" member={member} app={:?} {trouble}", app.images["app"])
                    });
                    format!(
                        "{} {} {} ready={}{}{}",
                        pod.name,
                        pod.uid,
                        pod.image,
                        pod.ready,
                        trouble.unwrap_or_default(),
                        app.unwrap_or_default()
                    )
                })
                .collect();
        }
        // The kubelet or a person took the pod away.
        ["crash", who] => world.pod_mut(member(who)).life = Life::Deleting,
        ["fail", who] => world.pod_mut(member(who)).phase = PodPhase::Ended,
        ["evict", who] => {
            let granted = world.evict(member(who));
            return vec![if granted {
                "granted".into()
            } else {
                "refused by the budget".into()
            }];
        }
        ["cordon", node] => world.cordoned.push((*node).to_owned()),
        ["kill", "node", node] => world.kill_node(node),
        ["kill", "node", "of", who] => {
            let node = world.pod_mut(member(who)).node.clone();
            world.kill_node(&node.expect("it runs somewhere"));
        }
        ["revive", "node", node] => world.revive_node(node),
        ["replacement", after, max] => {
            let max = max.parse().expect("a number of replacements an hour");
            let after = (*after).to_owned();
            world.edit(|cluster| {
                cluster.spec.replacement.after = after;
                cluster.spec.replacement.max_per_hour = max;
            });
        }
        ["drains", "replace"] => {
            world.edit(|cluster| {
                cluster.spec.replacement.on_drain = crds::cluster::OnDrain::Replace;
            });
        }
        ["fence", members @ ..] => {
            let members = members.iter().map(|word| member(word)).collect();
            world.edit(|cluster| cluster.spec.fenced = members);
        }
        ["size", size] => {
            let size = Quantity((*size).to_owned());
            world.edit(|cluster| cluster.spec.storage.size = size);
        }
        ["volumes", "are", "fixed"] => world.has_fixed_volumes = true,
        ["volumes", "may", "grow"] => world.has_fixed_volumes = false,
        // When the operator wants to be woken by time alone.
        ["wake"] => {
            let seen = world.look().expect("there is a cluster");
            let at = world.think(&seen).wake_at.expect("it wants to be woken");
            return vec![format!("in {} s", at.duration_since(world.now).as_secs())];
        }
        ["uncordon", node] => world.cordoned.retain(|known| known != node),
        ["lead", who] => {
            world.raft.leader = Some(member(who));
            world.raft.term += 1;
        }
        ["slow", who] => {
            world.raft.slow.insert(member(who));
        }
        ["fast", who] => {
            world.raft.slow.remove(&member(who));
        }
        ["damage", who] => {
            let uid = world
                .objects
                .volume_of(member(who))
                .expect("a volume")
                .uid
                .clone();
            world.disks.get_mut(&uid).expect("a disk").damage = Some("a frame is bad".into());
        }
        // The volume behind the claim was emptied by somebody.
        ["wipe", who] => {
            let uid = world
                .objects
                .volume_of(member(who))
                .expect("a volume")
                .uid
                .clone();
            let disk = world.disks.get_mut(&uid).expect("a disk");
            (disk.stamped, disk.member, disk.known) = (false, None, None);
        }
        ["lose", "volume", who] => world.lose_volume(member(who)),
        // Somebody made the claim again, with its labels: another volume under the old name.
        ["exchange", "volume", who] => {
            let name = world
                .objects
                .volume_of(member(who))
                .expect("a volume")
                .name
                .clone();
            let uid = world.fresh("uid");
            let volume = world.objects.volumes.get_mut(&name).expect("it was found");
            world.disks.remove(&volume.uid);
            world.disks.insert(uid.clone(), Disk::default());
            volume.uid = uid;
            world.pod_mut(member(who)).life = Life::Deleting;
        }
        // A person labels a volume, or takes the label off.
        ["retire", who] => world.label_volume(member(who), VolumeState::Retired),
        ["unretire", who] => world.label_volume(member(who), VolumeState::Formatted),
        ["tls", secret] => {
            let secret = (*secret).to_owned();
            world.edit(|cluster| cluster.spec.tls.secret_name = Some(secret));
        }
        ["secret", name] => world.secrets.push((*name).to_owned()),
        ["narrow", "budget"] => {
            let version = world.fresh("v");
            let budget = world.objects.budget.as_mut().expect("a budget");
            budget.object.drift = Drift::Changed;
            budget.object.version = version;
        }
        // The operator dies right after the effect that starts with these words.
        ["die", "after", words @ ..] => {
            let last = words.join(" ");
            for _ in 0..60 {
                world.turn();
                let seen = world.look().expect("there is a cluster");
                let planned = world.think(&seen);
                let at = planned
                    .actions
                    .iter()
                    .position(|action| action.to_string().starts_with(&last));
                let is_next = !planned.must_record(&seen.0);
                let effects_max = at.filter(|_| is_next).map_or(usize::MAX, |at| at + 1);
                let done = world.pass(&seen, effects_max);
                if effects_max != usize::MAX {
                    world.replace_operator();
                    return done;
                }
            }
            panic!("it never came to: {last}");
        }
        ["lose", "status"] => world.edit(|cluster| cluster.status = None),
        ["back", "up", "to", url] => {
            let url = (*url).to_owned();
            world.back_up(|policy| policy.destination.url = url);
        }
        ["back", "up", "no", "more"] => world.edit(|cluster| cluster.spec.backup = None),
        ["credentials", secret] => {
            let name = (*secret).to_owned();
            world.back_up(|policy| {
                policy.destination.credentials = Some(crds::cluster::SecretName { name });
            });
        }
        ["schedule", fields @ ..] => {
            let fields = fields.join(" ");
            world.back_up(|policy| policy.schedule = Some(fields));
        }
        ["suspend"] => world.back_up(|policy| policy.suspend = true),
        ["resume"] => world.back_up(|policy| policy.suspend = false),
        ["keep", count] => {
            let count = count.parse().expect("a number of backups");
            world.back_up(|policy| policy.keep.count = count);
        }
        ["ship", "no", "log"] => world.back_up(|policy| policy.log_shipping = false),
        ["ship", "log"] => world.back_up(|policy| policy.log_shipping = true),
        ["backup", name] => world.create_backup(name),
        ["backups"] => {
            let status = |world: &World| world.cluster.clone()?.status?.backup;
            let mut lines = world.summary();
            lines.retain(|line| {
                let starts = ["backup ", "bucket ", "BackupReady ", "BackupVerified "];
                starts.iter().any(|start| line.starts_with(start))
            });
            if let Some(status) = status(world) {
                let at = |time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| {
                    time.map_or("never".into(), |time| time.0.to_string())
                };
                lines.push(format!(
                    "last success {}, recoverable from {} to {}",
                    at(status.last_success),
                    at(status.recoverable_from),
                    at(status.recoverable_to)
                ));
            }
            return lines;
        }
        ["until", "a", "backup", "is", "under", "way"] => {
            let member = world.until_under_way();
            return vec![format!("at {}", operator::plan::action::short(member))];
        }
        ["replace", "operator"] => world.replace_operator(),
        ["bucket", "lacks", right] => world.bucket.lacks = Some((*right).to_owned()),
        ["bucket", "lacks", "nothing", "more"] => world.bucket.lacks = None,
        ["bucket", "rots", "no", "more"] => world.bucket.rot = None,
        ["bucket", "rots", words @ ..] => world.bucket.rot = Some(words.join(" ")),
        ["bucket", "is", "down"] => world.bucket.is_down = true,
        ["bucket", "is", "up"] => world.bucket.is_down = false,
        ["restore", "reads", backup] => {
            let in_use = &mut world.objects.backups.in_use;
            in_use.insert((*backup).to_owned());
        }
        ["delete", "cluster"] => world.delete_cluster(),
        ["tick", seconds] => world.tick(seconds.parse().expect("seconds")),
        _ => panic!("no such command: {line}"),
    }
    Vec::new()
}

fn play(script: &str) -> String {
    let mut world = World::new();
    let mut transcript = String::new();
    for line in script.lines() {
        if let Some(order) = line.strip_prefix("> ") {
            transcript.push_str(line);
            transcript.push('\n');
            for told in command(&mut world, order) {
                transcript.push_str(&format!("  {told}\n"));
            }
        } else if line.starts_with('#') || line.is_empty() {
            transcript.push_str(line);
            transcript.push('\n');
        }
    }
    transcript
}

#[test]
fn every_story_goes_as_it_is_written_down() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut stories: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    stories.sort();
    assert!(!stories.is_empty());
    for story in stories {
        let written = std::fs::read_to_string(&story).unwrap();
        let told = play(&written);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&story, &told).unwrap();
        } else {
            assert!(
                told == written,
                "{} went differently:\n{told}",
                story.display()
            );
        }
    }
}
