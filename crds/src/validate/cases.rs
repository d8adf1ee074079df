//! The table that both forms of the rules must agree on: run in this crate's tests against the pure
//! function, and by the stories against a real API server.

use serde_json::{Value, json};

/// What is sent, and what must come of it.
pub struct Case {
    pub name: &'static str,
    /// The object before; none for a create.
    pub old: Option<Value>,
    pub new: Value,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    /// By a rule of ours: the field, and a part of the message.
    Refused {
        field: &'static str,
        message: &'static str,
    },
    /// By the schema's own bounds and types, in the server's words: the field.
    OutOfSchema {
        field: &'static str,
    },
}

impl Verdict {
    /// Whether an API server's answer is the expected one: none for an accepted object, else its message.
    pub fn is_met_by(self, refusal: Option<&str>) -> bool {
        let last = |field: &'static str| field.rsplit('.').next().unwrap_or(field);
        match (self, refusal) {
            (Accepted, None) => true,
            (Refused { field, message }, Some(text)) => {
                text.contains(message) && text.contains(last(field))
            }
            (OutOfSchema { field }, Some(text)) => text.contains(last(field)),
            _ => false,
        }
    }
}

use Verdict::{Accepted, OutOfSchema, Refused};

/// Every case. Objects have no namespace; whoever sends them gives one.
pub fn cases() -> Vec<Case> {
    let mut cases = creates();
    cases.extend(changes());
    cases.extend(backups());
    cases
}

fn creates() -> Vec<Case> {
    let name = |message| Refused {
        field: "metadata.name",
        message,
    };
    let replicas = Refused {
        field: "spec.replicas",
        message: "must be 1, 3, 5 or 7",
    };
    let size = Refused {
        field: "spec.storage.size",
        message: "at least twice storage.logBudget and 512Mi",
    };
    let budget = Refused {
        field: "spec.storage.logBudget",
        message: "at least 256Mi",
    };
    let secret = Refused {
        field: "spec.tls.secretName",
        message: "a Secret that the operator makes",
    };
    let requests = Refused {
        field: "spec.resources.requests",
        message: "must not be above",
    };
    let after = Refused {
        field: "spec.replacement.after",
        message: "from 10s to 24h",
    };
    let per_hour = Refused {
        field: "spec.replacement.maxPerHour",
        message: "must be 1 to 10",
    };
    vec![
        create("an empty spec", json!({}), Accepted),
        create("one replica", json!({"replicas": 1}), Accepted),
        create(
            "a template with fields of a pod that the schema does not list",
            json!({"template": {
                "metadata": {"labels": {"team": "blue"}},
                "spec": {"containers": [{"name": "app", "image": "app:1"}]},
            }}),
            Accepted,
        ),
        create(
            "a template without a pod",
            json!({"template": {"metadata": {"labels": {"team": "blue"}}}}),
            OutOfSchema {
                field: "spec.template.spec",
            },
        ),
        create("seven replicas", json!({"replicas": 7}), Accepted),
        create("two replicas", json!({"replicas": 2}), replicas),
        create("four replicas", json!({"replicas": 4}), replicas),
        create("no replicas", json!({"replicas": 0}), replicas),
        create("nine replicas", json!({"replicas": 9}), replicas),
        create(
            "a negative number of replicas",
            json!({"replicas": -3}),
            replicas,
        ),
        create(
            "replicas in words",
            json!({"replicas": "three"}),
            OutOfSchema {
                field: "spec.replicas",
            },
        ),
        create(
            "an unknown pull policy",
            json!({"imagePullPolicy": "Sometimes"}),
            OutOfSchema {
                field: "spec.imagePullPolicy",
            },
        ),
        create(
            "an image with a space",
            json!({"image": "task store:1"}),
            OutOfSchema {
                field: "spec.image",
            },
        ),
        create(
            "a storage size in bytes as a number",
            json!({"storage": {"size": 10_737_418_240_u64}}),
            Accepted,
        ),
        create(
            "a storage size that is no quantity",
            json!({"storage": {"size": "10 gigs"}}),
            size,
        ),
        create(
            "a negative storage size",
            json!({"storage": {"size": "-10Gi"}}),
            size,
        ),
        create(
            "a storage size just large enough",
            json!({"storage": {"size": "2560Mi"}}),
            Accepted,
        ),
        create(
            "a storage size without room for snapshots",
            json!({"storage": {"size": "2500Mi"}}),
            size,
        ),
        create(
            "the smallest log budget",
            json!({"storage": {"size": "1Gi", "logBudget": "256Mi"}}),
            Accepted,
        ),
        create(
            "a log budget below its bound",
            json!({"storage": {"logBudget": "255Mi"}}),
            budget,
        ),
        create(
            "a log budget that is no quantity",
            json!({"storage": {"logBudget": "lots"}}),
            budget,
        ),
        create(
            "an unknown access mode",
            json!({"storage": {"accessMode": "ReadWriteMany"}}),
            OutOfSchema {
                field: "spec.storage.accessMode",
            },
        ),
        create(
            "volumes that go with the cluster",
            json!({"storage": {"whenDeleted": "Delete", "whenScaled": "Delete"}}),
            Accepted,
        ),
        create(
            "an unknown volume policy",
            json!({"storage": {"whenDeleted": "Maybe"}}),
            OutOfSchema {
                field: "spec.storage.whenDeleted",
            },
        ),
        create(
            "processors as a number",
            json!({"resources": {"requests": {"cpu": 1}}}),
            Accepted,
        ),
        create(
            "a negative number of processors",
            json!({"resources": {"requests": {"cpu": -1}}}),
            OutOfSchema {
                field: "spec.resources.requests",
            },
        ),
        create(
            "only limits",
            json!({"resources": {"limits": {"cpu": "2", "memory": "1Gi"}}}),
            Accepted,
        ),
        create(
            "a cpu request above its limit",
            json!({"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}}),
            requests,
        ),
        create(
            "the default memory request above a small limit",
            json!({"resources": {"limits": {"memory": "256Mi"}}}),
            requests,
        ),
        create(
            "a request that is no quantity",
            json!({"resources": {"requests": {"cpu": "much"}}}),
            OutOfSchema {
                field: "spec.resources.requests",
            },
        ),
        create(
            "a user's certificate",
            json!({"tls": {"secretName": "web-certificate"}}),
            Accepted,
        ),
        create(
            "a user's certificate that is named after the cluster",
            json!({"tls": {"secretName": "case-web-tls"}}),
            Accepted,
        ),
        create(
            "the CA's own Secret as certificate",
            json!({"tls": {"secretName": "case-ca"}}),
            secret,
        ),
        create(
            "a member's Secret as certificate",
            json!({"tls": {"secretName": "case-1-3-tls"}}),
            secret,
        ),
        create(
            "the client port's own Secret as certificate",
            json!({"tls": {"secretName": "case-client-tls"}}),
            secret,
        ),
        create(
            "required spread with tolerations",
            json!({"scheduling": {"spread": "Required", "tolerations": [{"key": "disk", "operator": "Exists"}]}}),
            Accepted,
        ),
        create(
            "an unknown spread",
            json!({"scheduling": {"spread": "Loose"}}),
            OutOfSchema {
                field: "spec.scheduling.spread",
            },
        ),
        create(
            "the shortest and most frequent replacement",
            json!({"replacement": {"after": "10s", "maxPerHour": 10}}),
            Accepted,
        ),
        create(
            "the latest replacement",
            json!({"replacement": {"after": "23h59m60s"}}),
            Accepted,
        ),
        create(
            "a replacement too soon",
            json!({"replacement": {"after": "9s"}}),
            after,
        ),
        create(
            "a replacement too late",
            json!({"replacement": {"after": "24h1s"}}),
            after,
        ),
        create(
            "a replacement after no time at all",
            json!({"replacement": {"after": ""}}),
            after,
        ),
        create(
            "a replacement after a time in words",
            json!({"replacement": {"after": "five minutes"}}),
            after,
        ),
        create(
            "a replacement after a time in milliseconds",
            json!({"replacement": {"after": "60000ms"}}),
            after,
        ),
        create(
            "no replacement within an hour",
            json!({"replacement": {"maxPerHour": 0}}),
            per_hour,
        ),
        create(
            "more replacements an hour than are remembered",
            json!({"replacement": {"maxPerHour": 11}}),
            per_hour,
        ),
        create(
            "paused in words",
            json!({"paused": "yes"}),
            OutOfSchema {
                field: "spec.paused",
            },
        ),
        Case {
            name: "the longest name",
            old: None,
            new: object(&"n".repeat(46), json!({})),
            verdict: Accepted,
        },
        Case {
            name: "a name too long",
            old: None,
            new: object(&"n".repeat(47), json!({})),
            verdict: name("at most 46 characters"),
        },
        Case {
            name: "a name with a dot",
            old: None,
            new: object("tasks.shop", json!({})),
            verdict: name("DNS label"),
        },
        Case {
            name: "a name that starts with a digit",
            old: None,
            new: object("1st", json!({})),
            verdict: name("starts with a letter"),
        },
        Case {
            name: "a name that another cluster's Service may have",
            old: None,
            new: object("shop-peers", json!({})),
            verdict: name("-peers"),
        },
    ]
}

fn changes() -> Vec<Case> {
    let shrunk = Refused {
        field: "spec.storage.size",
        message: "may only grow",
    };
    let class = Refused {
        field: "spec.storage.className",
        message: "may not change",
    };
    let mode = Refused {
        field: "spec.storage.accessMode",
        message: "may not change",
    };
    let budget = Refused {
        field: "spec.storage.logBudget",
        message: "may not change",
    };
    let replicas = Refused {
        field: "spec.replicas",
        message: "must be 1, 3, 5 or 7",
    };
    let storage = |storage: Value| json!({"storage": storage});
    vec![
        change(
            "beginning anew",
            json!({"restoredBy": "r"}),
            json!({}),
            Refused {
                field: "spec.restoredBy",
                message: "may not change",
            },
        ),
        change(
            "scaling out",
            json!({"replicas": 3}),
            json!({"replicas": 5}),
            Accepted,
        ),
        change(
            "scaling to an even number",
            json!({"replicas": 3}),
            json!({"replicas": 4}),
            replicas,
        ),
        change(
            "another image",
            json!({"image": "store:1"}),
            json!({"image": "store:2"}),
            Accepted,
        ),
        change(
            "a larger volume",
            storage(json!({"size": "10Gi"})),
            storage(json!({"size": "20Gi"})),
            Accepted,
        ),
        change(
            "the same size in another unit",
            storage(json!({"size": "10Gi"})),
            storage(json!({"size": "10240Mi"})),
            Accepted,
        ),
        change(
            "a smaller volume",
            storage(json!({"size": "20Gi"})),
            storage(json!({"size": "10Gi"})),
            shrunk,
        ),
        change(
            "a size dropped back to the default",
            storage(json!({"size": "20Gi"})),
            json!({}),
            shrunk,
        ),
        change(
            "another class",
            storage(json!({"className": "a"})),
            storage(json!({"className": "b"})),
            class,
        ),
        change(
            "a class where there was none",
            json!({}),
            storage(json!({"className": "b"})),
            class,
        ),
        change(
            "no class where there was one",
            storage(json!({"className": "a"})),
            json!({}),
            class,
        ),
        change(
            "another access mode",
            json!({}),
            storage(json!({"accessMode": "ReadWriteOncePod"})),
            mode,
        ),
        change(
            "another log budget",
            json!({}),
            storage(json!({"logBudget": "2Gi"})),
            budget,
        ),
        change(
            "other volume policies",
            json!({}),
            storage(json!({"whenDeleted": "Delete", "whenScaled": "Delete"})),
            Accepted,
        ),
        change(
            "a certificate of one's own",
            json!({}),
            json!({"tls": {"secretName": "web"}}),
            Accepted,
        ),
        change(
            "a later replacement",
            json!({}),
            json!({"replacement": {"after": "1h", "onDrain": "Replace"}}),
            Accepted,
        ),
        change(
            "a drain that nobody knows of",
            json!({}),
            json!({"replacement": {"onDrain": "Move"}}),
            OutOfSchema {
                field: "spec.replacement.onDrain",
            },
        ),
        change("pausing", json!({}), json!({"paused": true}), Accepted),
        change(
            "laying to rest",
            json!({}),
            json!({"hibernated": true}),
            Accepted,
        ),
        change(
            "a fenced member",
            json!({}),
            json!({"fenced": [4294967298u64]}),
            Accepted,
        ),
        change(
            "more fenced members than there can be",
            json!({}),
            json!({"fenced": [1, 2, 3, 4, 5, 6, 7]}),
            OutOfSchema {
                field: "spec.fenced",
            },
        ),
        change(
            "an acknowledged recovery",
            json!({}),
            json!({"recovery": {"acknowledge": "5f0c", "acceptUnconfirmed": [4294967298u64]}}),
            Accepted,
        ),
        change(
            "a recovery without a nonce",
            json!({}),
            json!({"recovery": {"acknowledge": ""}}),
            OutOfSchema {
                field: "spec.recovery.acknowledge",
            },
        ),
    ]
}

fn backups() -> Vec<Case> {
    let with = |name, more: Value, verdict| {
        let mut backup = json!({"destination": {"url": "s3://bucket/prefix"}});
        for (key, value) in more.as_object().into_iter().flatten() {
            backup[key] = value.clone();
        }
        create(name, json!({"backup": backup}), verdict)
    };
    let refused = |field, message| Refused { field, message };
    let url = refused("spec.backup.destination.url", "s3://bucket/prefix, gs://");
    let account = refused("spec.backup.destination.account", "required for azure://");
    let endpoint = refused("spec.backup.destination.endpoint", "http:// or https://");
    let schedule = refused("spec.backup.schedule", "five fields");
    let zone = refused("spec.backup.timeZone", "IANA");
    let count = refused("spec.backup.keep.count", "1 to 1000");
    let days = refused("spec.backup.keep.days", "1 to 3650");
    let slow = refused("spec.backup.bytesPerSecondMax", "at least 64Ki");
    vec![
        with("backups by hand, and the log", json!({}), Accepted),
        with(
            "backups with everything",
            json!({
                "destination": {
                    "url": "s3://bucket", "endpoint": "http://store:9000", "region": "eu-1", "pathStyle": true,
                    "credentials": {"name": "bucket"},
                },
                "schedule": "*/15 2-5 * * MON-FRI", "timeZone": "America/Argentina/Buenos_Aires",
                "suspend": true, "keep": {"count": 30, "days": 90}, "logShipping": false,
                "bytesPerSecondMax": "20Mi",
            }),
            Accepted,
        ),
        create(
            "backups without a destination",
            json!({"backup": {"schedule": "0 3 * * *"}}),
            OutOfSchema {
                field: "spec.backup.destination",
            },
        ),
        with(
            "a destination of no kind",
            json!({"destination": {"url": "ftp://host/x"}}),
            url,
        ),
        with(
            "a destination without a bucket",
            json!({"destination": {"url": "gs://"}}),
            url,
        ),
        with(
            "a container with its account",
            json!({"destination": {"url": "azure://box", "account": "acme"}}),
            Accepted,
        ),
        with(
            "a container without an account",
            json!({"destination": {"url": "azure://box"}}),
            account,
        ),
        with(
            "a bucket with an account",
            json!({"destination": {"url": "gs://bucket", "account": "acme"}}),
            account,
        ),
        with(
            "an endpoint with a path",
            json!({"destination": {"url": "s3://bucket", "endpoint": "https://store/path"}}),
            endpoint,
        ),
        with(
            "an endpoint of a folder",
            json!({"destination": {"url": "file:///backups", "endpoint": "https://store"}}),
            endpoint,
        ),
        with(
            "a schedule of six fields",
            json!({"schedule": "0 0 3 * * *"}),
            schedule,
        ),
        with(
            "a schedule in words",
            json!({"schedule": "@daily"}),
            schedule,
        ),
        with(
            "a time zone that is none",
            json!({"timeZone": "UTC; 1"}),
            zone,
        ),
        with(
            "drills all the time",
            json!({"drillEvery": "30s"}),
            refused("spec.backup.drillEvery", "from 1m to 8760h"),
        ),
        with("drills each week", json!({"drillEvery": "168h"}), Accepted),
        with("no backup kept", json!({"keep": {"count": 0}}), count),
        with(
            "backups kept for ever",
            json!({"keep": {"days": 4000}}),
            days,
        ),
        with(
            "a backup at a crawl",
            json!({"bytesPerSecondMax": "1Ki"}),
            slow,
        ),
        with(
            "a speed as a number",
            json!({"bytesPerSecondMax": 65536}),
            Accepted,
        ),
        change(
            "another destination and another schedule",
            json!({"backup": {"destination": {"url": "s3://a"}, "schedule": "0 3 * * *"}}),
            json!({"backup": {"destination": {"url": "s3://b"}, "schedule": "0 4 * * *"}}),
            Accepted,
        ),
    ]
}

fn create(name: &'static str, spec: Value, verdict: Verdict) -> Case {
    Case {
        name,
        old: None,
        new: object("case", spec),
        verdict,
    }
}

fn change(name: &'static str, old: Value, new: Value, verdict: Verdict) -> Case {
    Case {
        name,
        old: Some(object("case", old)),
        new: object("case", new),
        verdict,
    }
}

fn object(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{}/{}", crate::GROUP, crate::VERSION),
        "kind": "TaskStoreCluster",
        "metadata": {"name": name},
        "spec": spec,
    })
}
