//! The client port's words in both protocols, against a door that notes what passes and answers by rote.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use taskstore::limits::*;
use taskstore::metrics::Metrics;
use taskstore::server::calls::Calls;
use taskstore::service::Door;
use taskstore::service::request::{
    ClaimedTask, Error, Page, Request, Response, TaskWithPayload, UnavailableCause,
};
use taskstore::task::command::*;
use taskstore::task::id::{Name, TaskId, Token};
use taskstore_api::v1;
use taskstore_api::v1::tasks_client::TasksClient;
use tonic::Code;
use tonic_types::StatusExt;
use tower::ServiceExt;

type Rote = Box<dyn Fn(&Request) -> Result<Response, Error> + Send + Sync>;

/// Of the member that answers.
const INCARNATION: u16 = 2;

struct Fake {
    rote: Rote,
    seen: Mutex<VecDeque<(Request, Instant)>>,
}

impl Door for Fake {
    fn call(&self, request: Request, deadline: Instant) -> BoxFuture<'_, Result<Response, Error>> {
        let answer = (self.rote)(&request);
        self.seen.lock().unwrap().push_back((request, deadline));
        Box::pin(async { answer })
    }
}

struct Port {
    door: Arc<Fake>,
    metrics: Arc<Metrics>,
}

impl Port {
    fn new(rote: impl Fn(&Request) -> Result<Response, Error> + Send + Sync + 'static) -> Port {
        let door = Arc::new(Fake {
            rote: Box::new(rote),
            seen: Mutex::default(),
        });
        Port {
            door,
            metrics: Arc::default(),
        }
    }

    /// Answers every write with success.
    fn agreeable() -> Port {
        Port::new(|request| Ok(agree(request)))
    }

    fn failing(error: Error) -> Port {
        Port::new(move |_| Err(error.clone()))
    }

    fn router(&self) -> axum::Router {
        let calls = Calls::new(self.door.clone(), self.metrics.clone());
        taskstore::server::router(calls, INCARNATION)
    }

    fn grpc(&self) -> TasksClient<axum::Router> {
        TasksClient::new(self.router())
    }

    fn seen(&self) -> Option<Request> {
        self.door
            .seen
            .lock()
            .unwrap()
            .pop_front()
            .map(|(request, _)| request)
    }

    async fn send(&self, request: http::Request<Body>) -> (StatusCode, http::HeaderMap, Value) {
        let response = self.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (
            parts.status,
            parts.headers,
            serde_json::from_slice(&body).unwrap(),
        )
    }

    async fn http(&self, method: Method, path: &str, body: impl Into<Body>) -> (u16, Value) {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .body(body.into())
            .unwrap();
        let (status, _, body) = self.send(request).await;
        (status.as_u16(), body)
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.http(Method::POST, path, body.to_string()).await
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn view(id: &str) -> TaskView {
    TaskView {
        seq: 7,
        namespace: name("n"),
        queue: name("q"),
        id: TaskId::parse(id).unwrap(),
        kind: "k".into(),
        content_type: "text/plain".into(),
        priority: 3,
        not_before_ms: 0,
        lease_ms: 30_000,
        attempts_max: 10,
        state: TaskState::Running,
        attempts: 1,
        abandonments: 0,
        created_ms: 5,
        finished_ms: 0,
        token: (1 << 48) + 9,
        result: Bytes::from_static(b"r"),
        error: String::new(),
        payload_bytes: 3,
        payload_hash: [0; 16],
        revision: (1 << 48) + 8,
    }
}

fn found(id: &str) -> TaskWithPayload {
    TaskWithPayload {
        task: view(id),
        payload: Bytes::from_static(b"abc"),
    }
}

fn agree(request: &Request) -> Response {
    match request {
        Request::Write(Command::Create(create)) => {
            let created = |task: &NewTask| {
                Ok(Created {
                    id: task.id.clone(),
                    revision: 1 << 60,
                    existed: false,
                })
            };
            Response::Outcome(Outcome::Created(create.tasks.iter().map(created).collect()))
        }
        Request::Write(Command::Settle(settles)) => {
            let settled = |_: &Settle| {
                Ok(Settled {
                    state: TaskState::Completed,
                    revision: 12,
                })
            };
            Response::Outcome(Outcome::Settled(settles.iter().map(settled).collect()))
        }
        Request::Write(Command::Extend(extend)) => {
            Response::Outcome(Outcome::Extended(Ok(extend.lease_ms)))
        }
        Request::Write(_) => Response::Outcome(Outcome::Done),
        Request::Claim { .. } => Response::Claimed(vec![ClaimedTask {
            task: found("a"),
            token: (1 << 48) + 9,
            lease_ms: 30_000,
        }]),
        Request::Get { .. } => Response::Task(found("a")),
        Request::List(_) => Response::Page(Page {
            tasks: vec![found("a")],
            next_after_seq: 7,
            revision: 44,
        }),
        Request::QueueStats { .. } => Response::QueueStats(QueueStats {
            available: 2,
            ..QueueStats::default()
        }),
    }
}

const TASKS: &str = "/v1/namespaces/n/queues/q/tasks";

#[tokio::test]
async fn a_create_says_the_same_in_both_protocols() {
    let port = Port::agreeable();
    let (status, body) = port
        .post(
            TASKS,
            json!({"id": "a", "kind": "k", "payload": "YWJj", "priority": 3}),
        )
        .await;
    assert_eq!(
        (status, &body),
        (
            201,
            &json!({"id": "a", "revision": "1152921504606846976", "existed": false})
        )
    );
    let by_http = port.seen().unwrap();
    let task = v1::NewTask {
        id: "a".into(),
        kind: "k".into(),
        payload: "abc".into(),
        priority: 3,
        ..Default::default()
    };
    let request = v1::CreateRequest {
        namespace: "n".into(),
        queue: "q".into(),
        task: Some(task),
    };
    let created = port.grpc().create(request).await.unwrap().into_inner();
    assert_eq!((created.id.as_str(), created.revision), ("a", 1 << 60));
    assert_eq!(port.seen().unwrap(), by_http);
    let Request::Write(Command::Create(create)) = by_http else {
        panic!()
    };
    let task = &create.tasks[0];
    assert_eq!(
        (task.lease_ms, task.attempts_max),
        (LEASE_MS_DEFAULT, ATTEMPTS_DEFAULT)
    );
    assert_eq!(task.payload_hash, blake3::hash(b"abc").as_bytes()[..16]);
    let text = port.metrics.text();
    assert!(
        text.contains(r#"requests_total{operation="create",code="OK"} 2"#),
        "{text}"
    );
}

#[tokio::test]
async fn an_id_and_a_claim_id_are_minted_where_the_caller_names_none() {
    let port = Port::agreeable();
    let (_, body) = port.post(TASKS, json!({})).await;
    let id = uuid::Uuid::parse_str(body["id"].as_str().unwrap()).unwrap();
    assert_eq!(id.get_version_num(), 7);
    port.seen().unwrap();
    port.post(&format!("{TASKS}:claim"), json!({})).await;
    let Some(Request::Claim { claim, wait_ms: 0 }) = port.seen() else {
        panic!()
    };
    assert!(uuid::Uuid::parse_str(&claim.claim_id).is_ok());
    assert_eq!(
        (claim.tasks_max, claim.bytes_max),
        (1, CLAIM_BYTES_MAX as u64)
    );
}

#[tokio::test]
async fn a_claim_waits_no_longer_than_its_caller() {
    let port = Port::agreeable();
    let request = v1::ClaimRequest {
        namespace: "n".into(),
        queues: vec!["q".into(), "r".into()],
        wait_ms: 60_000,
        ..Default::default()
    };
    let mut patient = tonic::Request::new(request);
    patient.set_timeout(Duration::from_secs(5));
    let claimed = port.grpc().claim(patient).await.unwrap().into_inner();
    assert_eq!(claimed.tasks[0].lease_token, (1 << 48) + 9);
    assert_eq!(claimed.tasks[0].task.as_ref().unwrap().payload, "abc");
    let (request, deadline) = port.door.seen.lock().unwrap().pop_front().unwrap();
    let Request::Claim { claim, wait_ms } = request else {
        panic!()
    };
    assert_eq!(claim.queues, [name("q"), name("r")]);
    assert_eq!(wait_ms, 4_800);
    assert!(deadline <= Instant::now() + Duration::from_secs(5));
}

#[tokio::test]
async fn claims_settles_and_reads_have_their_json() {
    let port = Port::agreeable();
    let (status, body) = port
        .post(
            "/v1/namespaces/n/tasks:claim",
            json!({"queues": ["q"], "wait_ms": 10}),
        )
        .await;
    assert_eq!(status, 200);
    assert_eq!(body["tasks"][0]["lease_token"], "281474976710665");
    assert_eq!(body["tasks"][0]["task"]["payload"], "YWJj");
    assert_eq!(body["tasks"][0]["task"]["state"], "RUNNING");
    port.seen().unwrap();

    let token = "281474976710665";
    let complete = json!({"lease_token": token, "result": "cg=="});
    let (status, body) = port
        .post("/v1/namespaces/n/tasks/a:complete", complete)
        .await;
    assert_eq!(
        (status, body),
        (200, json!({"state": "COMPLETED", "revision": "12"}))
    );
    let lease = Lease {
        namespace: name("n"),
        id: TaskId::parse("a").unwrap(),
        token: Token((1 << 48) + 9),
    };
    let action = SettleAction::Complete {
        result: Bytes::from_static(b"r"),
    };
    let expected = Settle {
        lease: lease.clone(),
        action,
    };
    assert_eq!(
        port.seen(),
        Some(Request::Write(Command::Settle(vec![expected])))
    );

    let settles = json!({"settles": [
        {"fail": {"id": "a", "lease_token": token, "error": "e", "retry_after_ms": 5}},
        {"release": {"id": "a", "lease_token": token}},
    ]});
    let (_, body) = port.post("/v1/namespaces/n/tasks:settle", settles).await;
    assert_eq!(
        body["results"][1],
        json!({"settled": {"state": "COMPLETED", "revision": "12"}})
    );
    let fail = SettleAction::Fail {
        error: "e".into(),
        retry_after_ms: Some(5),
        discard: false,
    };
    let expected = [fail, SettleAction::Release].map(|action| Settle {
        lease: lease.clone(),
        action,
    });
    assert_eq!(
        port.seen(),
        Some(Request::Write(Command::Settle(expected.to_vec())))
    );

    let (_, body) = port
        .post(
            "/v1/namespaces/n/tasks/a:extend",
            json!({"lease_token": token, "lease_ms": 500}),
        )
        .await;
    assert_eq!(body, json!({"lease_ms": 500}));

    let (_, basic) = port.http(Method::GET, "/v1/namespaces/n/tasks/a", "").await;
    let (_, full) = port
        .http(Method::GET, "/v1/namespaces/n/tasks/a?view=FULL", "")
        .await;
    assert_eq!(
        (&basic["payload"], &basic["result"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&full["payload"], &full["result"]),
        (&json!("YWJj"), &json!("cg=="))
    );
    let (_, stats) = port
        .http(Method::GET, "/v1/namespaces/n/queues/q/stats", "")
        .await;
    assert_eq!(stats["available"], 2);
}

#[tokio::test]
async fn a_list_goes_on_from_its_page_token_and_refuses_another_lists() {
    let port = Port::agreeable();
    let (_, page) = port
        .http(
            Method::GET,
            &format!("{TASKS}?states=RUNNING,AVAILABLE&page_size=1"),
            "",
        )
        .await;
    assert_eq!(page["revision"], "44");
    let token = page["next_page_token"].as_str().unwrap();
    port.seen().unwrap();
    port.http(
        Method::GET,
        &format!("{TASKS}?states=RUNNING,AVAILABLE&page_token={token}"),
        "",
    )
    .await;
    let Some(Request::List(list)) = port.seen() else {
        panic!()
    };
    assert_eq!(
        (list.after_seq, list.page_size),
        (7, PAGE_SIZE_DEFAULT as u32)
    );
    assert_eq!(list.states, [TaskState::Running, TaskState::Available]);
    let (status, problem) = port
        .http(Method::GET, &format!("{TASKS}?page_token={token}"), "")
        .await;
    assert_eq!(
        (status, &problem["reason"]),
        (400, &json!("PAGE_TOKEN_INVALID"))
    );
    let request = v1::ListRequest {
        namespace: "n".into(),
        queue: "q".into(),
        page_token: token.to_owned(),
        ..Default::default()
    };
    let status = port.grpc().list(request).await.unwrap_err();
    assert_eq!(
        status.get_error_details().error_info().unwrap().reason,
        "PAGE_TOKEN_INVALID"
    );
}

#[tokio::test]
async fn a_batch_tells_each_items_fate() {
    let port = Port::new(|_| {
        let id = TaskId::parse("b").unwrap();
        let created = Created {
            id: TaskId::parse("a").unwrap(),
            revision: 3,
            existed: true,
        };
        Ok(Response::Outcome(Outcome::Created(vec![
            Ok(created),
            Err(Rejection::Duplicate { id }),
        ])))
    });
    let (status, body) = port
        .post(
            &format!("{TASKS}:batch"),
            json!({"tasks": [{"id": "a"}, {"id": "b"}]}),
        )
        .await;
    assert_eq!(
        (status, &body["results"][0]["created"]["existed"]),
        (200, &json!(true))
    );
    assert_eq!(body["results"][1]["error"]["reason"], "DUPLICATE");
    let tasks = vec![v1::NewTask::default(); 2];
    let request = v1::CreateBatchRequest {
        namespace: "n".into(),
        queue: "q".into(),
        tasks,
    };
    let results = port
        .grpc()
        .create_batch(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let Some(v1::create_result::Result::Error(error)) = &results[1].result else {
        panic!()
    };
    assert_eq!(
        (error.code, error.reason.as_str()),
        (Code::AlreadyExists as i32, "DUPLICATE")
    );
}

#[tokio::test]
async fn malformed_json_is_refused_with_its_place_and_does_not_pass_the_door() {
    let port = Port::agreeable();
    let batch = format!("{TASKS}:batch");
    let claim = format!("{TASKS}:claim");
    let long = "q".repeat(64);
    let table: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        (TASKS, b"{".to_vec(), 400, "body"),
        (TASKS, b"[]".to_vec(), 400, "body"),
        (TASKS, b"{} {}".to_vec(), 400, "body"),
        (TASKS, br#"{"priority": "high"}"#.to_vec(), 400, "priority"),
        (TASKS, br#"{"priority": -1}"#.to_vec(), 400, "priority"),
        (TASKS, br#"{"priority": 10}"#.to_vec(), 400, "priority"),
        (TASKS, br#"{"priority": 1.5}"#.to_vec(), 400, "priority"),
        (TASKS, br#"{"lease_ms": 99}"#.to_vec(), 400, "lease_ms"),
        (
            TASKS,
            br#"{"attempts_max": 1001}"#.to_vec(),
            400,
            "attempts_max",
        ),
        (
            TASKS,
            br#"{"not_before_ms": 99999999999999999}"#.to_vec(),
            400,
            "not_before_ms",
        ),
        (TASKS, br#"{"payload": "???"}"#.to_vec(), 400, "payload"),
        (TASKS, br#"{"id": "a/b"}"#.to_vec(), 400, "id"),
        (TASKS, b"{\"kind\": \"\xff\"}".to_vec(), 400, "kind"),
        (TASKS, br#"{"kind": "a\nb"}"#.to_vec(), 400, "kind"),
        (TASKS, br#"{"prio": 1}"#.to_vec(), 400, "prio"),
        (&batch, br#"{"tasks": [["id"]]}"#.to_vec(), 400, "tasks[0]"),
        (&batch, br#"{"tasks": []}"#.to_vec(), 400, "tasks"),
        (
            &batch,
            br#"{"tasks": [{}, {"priority": 11}]}"#.to_vec(),
            400,
            "tasks[1].priority",
        ),
        (
            &batch,
            br#"{"tasks": [{}, {"priority": []}]}"#.to_vec(),
            400,
            "tasks[1].priority",
        ),
        (
            &batch,
            format!("{{\"tasks\": [{}{{}}]}}", "{},".repeat(BATCH_ITEMS_MAX)).into(),
            413,
            "tasks",
        ),
        (&claim, br#"{"wait_ms": 60001}"#.to_vec(), 400, "wait_ms"),
        (&claim, br#"{"wait_ms": -1}"#.to_vec(), 400, "wait_ms"),
        (&claim, br#"{"tasks_max": 1001}"#.to_vec(), 400, "tasks_max"),
        (&claim, br#"{"queues": ["x"]}"#.to_vec(), 400, "queues"),
        (
            "/v1/namespaces/n/tasks:claim",
            b"{}".to_vec(),
            400,
            "queues",
        ),
        (
            "/v1/namespaces/n/tasks:claim",
            br#"{"queues": ["UPPER"]}"#.to_vec(),
            400,
            "queues[0]",
        ),
        (
            "/v1/namespaces/n/tasks/a:complete",
            br#"{"lease_token": 5}"#.to_vec(),
            400,
            "lease_token",
        ),
        (
            "/v1/namespaces/n/tasks/a:complete",
            br#"{"lease_token": "-5"}"#.to_vec(),
            400,
            "lease_token",
        ),
        (
            "/v1/namespaces/n/tasks/a:complete",
            br#"{"lease_token": "0"}"#.to_vec(),
            400,
            "lease_token",
        ),
        (
            "/v1/namespaces/n/tasks/a:complete",
            br#"{"id": "b", "lease_token": "5"}"#.to_vec(),
            400,
            "id",
        ),
        (
            "/v1/namespaces/n/tasks/a:complete",
            b"{}".to_vec(),
            400,
            "body",
        ),
        (
            "/v1/namespaces/n/tasks:settle",
            br#"{"settles": [{"explode": {}}]}"#.to_vec(),
            400,
            "settles[0]",
        ),
        (
            "/v1/namespaces/n/tasks:settle",
            br#"{"settles": [{"release": {"lease_token": "5"}}]}"#.to_vec(),
            400,
            "settles[0].id",
        ),
    ];
    for (path, body, status, field) in table {
        let shown = String::from_utf8_lossy(&body)
            .chars()
            .take(60)
            .collect::<String>();
        let (answered, problem) = port.http(Method::POST, path, body).await;
        assert_eq!(answered, status, "{path} {shown}: {problem}");
        assert_eq!(problem["field"], field, "{path} {shown}: {problem}");
        assert!(
            problem["bound"].is_string() && problem["detail"].is_string(),
            "{problem}"
        );
    }
    let queue = format!("/v1/namespaces/n/queues/{long}/tasks");
    assert_eq!(port.post(&queue, json!({})).await.1["field"], "queue");
    for (query, field) in [
        ("page_size=-1", "page_size"),
        ("page_size=1001", "page_size"),
        ("states=SLEEPING", "states"),
        ("states=running", "states"),
        ("view=SOME", "view"),
        ("filter=kind%3Dx", "filter"),
        ("colour=red", "colour"),
        ("view=FULL&view=FULL", "view"),
        ("view=%ff", "query"),
    ] {
        let (status, problem) = port
            .http(Method::GET, &format!("{TASKS}?{query}"), "")
            .await;
        assert_eq!(
            (status, &problem["field"]),
            (400, &json!(field)),
            "{query}: {problem}"
        );
    }
    assert_eq!(port.seen(), None);
}

fn base64_of(bytes: usize) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(vec![b'x'; bytes])
}

#[tokio::test]
async fn what_is_too_large_is_refused_with_the_bound_and_what_just_fits_is_not() {
    let port = Port::agreeable();
    let (status, _) = port
        .post(TASKS, json!({"payload": base64_of(PAYLOAD_BYTES_MAX)}))
        .await;
    assert_eq!(status, 201);
    port.seen().unwrap();
    let payload = base64_of(PAYLOAD_BYTES_MAX + 1);
    let (status, problem) = port.post(TASKS, json!({"payload": payload})).await;
    assert_eq!(
        (status, &problem["reason"], &problem["field"]),
        (413, &json!("TOO_LARGE"), &json!("payload"))
    );
    assert_eq!(
        problem["bound"],
        "must be at most 1048576 bytes, and has 1048577"
    );
    let million = base64_of(PAYLOAD_BYTES_MAX);
    let task = json!({"payload": million});
    let tasks = json!({"tasks": [task, task, task, {"payload": "eA=="}]});
    let (status, problem) = port.post(&format!("{TASKS}:batch"), tasks).await;
    assert_eq!((status, &problem["field"]), (413, &json!("tasks")));
    let (status, problem) = port
        .http(Method::POST, TASKS, vec![b' '; REQUEST_BYTES_MAX + 1])
        .await;
    assert_eq!((status, &problem["field"]), (413, &json!("body")));
    let result = base64_of(RESULT_BYTES_MAX + 1);
    let complete = json!({"lease_token": "5", "result": result});
    let (status, problem) = port
        .post("/v1/namespaces/n/tasks/a:complete", complete)
        .await;
    assert_eq!((status, &problem["field"]), (413, &json!("result")));
    let fail = json!({"lease_token": "5", "error": "e".repeat(ERROR_BYTES_MAX + 1)});
    let (status, problem) = port.post("/v1/namespaces/n/tasks/a:fail", fail).await;
    assert_eq!((status, &problem["field"]), (413, &json!("error")));
    assert_eq!(port.seen(), None);

    let mut grpc = port.grpc();
    let create = |payload: Bytes| v1::CreateRequest {
        namespace: "n".into(),
        queue: "q".into(),
        task: Some(v1::NewTask {
            payload,
            ..Default::default()
        }),
    };
    for bytes in [PAYLOAD_BYTES_MAX + 1, REQUEST_BYTES_MAX + 1] {
        let status = grpc
            .create(create(vec![0; bytes].into()))
            .await
            .unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(
            status.get_error_details().error_info().unwrap().reason,
            "TOO_LARGE"
        );
    }
    assert_eq!(port.seen(), None);
}

#[tokio::test]
async fn malformed_grpc_is_refused_with_its_place() {
    let port = Port::agreeable();
    let mut grpc = port.grpc();
    let field_of = |status: tonic::Status| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.domain.as_str(), info.reason.as_str()),
            ("taskstore.dev", "INVALID_FIELD")
        );
        info.metadata["field"].clone()
    };
    let create = v1::CreateRequest {
        namespace: "n".into(),
        queue: "q".into(),
        task: None,
    };
    assert_eq!(
        field_of(grpc.create(create.clone()).await.unwrap_err()),
        "task"
    );
    let upper = v1::CreateRequest {
        namespace: "N".into(),
        ..create.clone()
    };
    let upper = v1::CreateRequest {
        task: Some(v1::NewTask::default()),
        ..upper
    };
    assert_eq!(field_of(grpc.create(upper).await.unwrap_err()), "namespace");
    let list = |states, view| v1::ListRequest {
        namespace: "n".into(),
        queue: "q".into(),
        states,
        view,
        ..Default::default()
    };
    assert_eq!(
        field_of(grpc.list(list(vec![2, 77], 0)).await.unwrap_err()),
        "states[1]"
    );
    assert_eq!(
        field_of(grpc.list(list(vec![0], 0)).await.unwrap_err()),
        "states[0]"
    );
    assert_eq!(
        field_of(grpc.list(list(vec![], 9)).await.unwrap_err()),
        "view"
    );
    let settles = v1::SettleBatchRequest {
        settles: vec![v1::Settle { action: None }],
    };
    assert_eq!(
        field_of(grpc.settle_batch(settles).await.unwrap_err()),
        "settles[0].action"
    );
    let lost = v1::ReleaseRequest { lease: None };
    assert_eq!(field_of(grpc.release(lost).await.unwrap_err()), "lease");
    let claim = v1::ClaimRequest {
        namespace: "n".into(),
        queues: vec!["q".into(); 17],
        ..Default::default()
    };
    let status = grpc.claim(claim).await.unwrap_err();
    assert_eq!(
        status.get_error_details().error_info().unwrap().metadata["field"],
        "queues"
    );
    // Field 1 of a CreateRequest, a string of one byte that is no UTF-8; and a message that ends early.
    for message in [&[0x0a, 0x01, 0xff][..], &[0x0a, 0x09, b'n'][..]] {
        let mut framed = vec![0, 0, 0, 0, message.len() as u8];
        framed.extend_from_slice(message);
        let request = http::Request::post("/taskstore.v1.Tasks/Create")
            .header("content-type", "application/grpc")
            .body(Body::from(framed))
            .unwrap();
        let response = port.router().oneshot(request).await.unwrap();
        assert_eq!(
            field_of(tonic::Status::from_header_map(response.headers()).unwrap()),
            "message"
        );
    }
    assert_eq!(port.seen(), None);
}

#[tokio::test]
async fn an_idempotency_key_is_refused_by_every_operation_in_both_protocols() {
    let port = Port::agreeable();
    let paths = [
        TASKS.to_owned(),
        format!("{TASKS}:batch"),
        format!("{TASKS}:claim"),
        "/v1/namespaces/n/tasks:claim".to_owned(),
        "/v1/namespaces/n/tasks:settle".to_owned(),
        "/v1/namespaces/n/tasks/a:extend".to_owned(),
        "/v1/namespaces/n/tasks/a:complete".to_owned(),
        "/v1/namespaces/n/tasks/a:fail".to_owned(),
        "/v1/namespaces/n/tasks/a:release".to_owned(),
    ];
    for path in &paths {
        let post = |key: &str| {
            http::Request::post(path)
                .header(key, "k")
                .body(Body::from("{}"))
                .unwrap()
        };
        let (status, _, problem) = port.send(post("Idempotency-Key")).await;
        assert_eq!(
            (status.as_u16(), &problem["reason"]),
            (501, &json!("FEATURE_NOT_ACTIVE")),
            "{path}"
        );
        let (_, _, answer) = port.send(post("another-header")).await;
        assert_ne!(answer["reason"], json!("PATH_NOT_FOUND"), "{path}");
        while port.seen().is_some() {}
    }

    fn keyed<T: Default>() -> tonic::Request<T> {
        let mut request = tonic::Request::new(T::default());
        let key = "k".parse().unwrap();
        request.metadata_mut().insert("idempotency-key", key);
        request
    }
    let mut grpc = port.grpc();
    let refusals = [
        grpc.create(keyed()).await.err(),
        grpc.create_batch(keyed()).await.err(),
        grpc.claim(keyed()).await.err(),
        grpc.extend(keyed()).await.err(),
        grpc.complete(keyed()).await.err(),
        grpc.fail(keyed()).await.err(),
        grpc.release(keyed()).await.err(),
        grpc.settle_batch(keyed()).await.err(),
    ];
    for (at, status) in refusals.into_iter().enumerate() {
        let status = status.unwrap();
        assert_eq!(status.code(), Code::Unimplemented, "operation {at}");
        assert_eq!(
            status.get_error_details().error_info().unwrap().reason,
            "FEATURE_NOT_ACTIVE"
        );
    }
    assert_eq!(port.seen(), None);
}

#[tokio::test]
async fn what_the_service_refuses_has_one_meaning_in_both_protocols() {
    let id = TaskId::parse("a").unwrap();
    let cause = UnavailableCause::NoLeader;
    let table = [
        (
            Error::Rejected(Rejection::TaskNotFound { id: id.clone() }),
            404,
            Code::NotFound,
            "TASK_NOT_FOUND",
        ),
        (
            Error::Unavailable {
                cause,
                reason: "r".into(),
                retry_after_ms: 200,
            },
            503,
            Code::Unavailable,
            "NO_LEADER",
        ),
        (
            Error::DiskHighWater,
            507,
            Code::ResourceExhausted,
            "DISK_HIGH_WATER",
        ),
        (
            Error::OutcomeUnknown { reason: "r".into() },
            504,
            Code::DeadlineExceeded,
            "OUTCOME_UNKNOWN",
        ),
    ];
    for (error, http_status, code, reason) in table {
        let port = Port::failing(error);
        let request = http::Request::get("/v1/namespaces/n/tasks/a")
            .body(Body::empty())
            .unwrap();
        let (status, headers, problem) = port.send(request).await;
        assert_eq!(
            (status.as_u16(), &problem["reason"]),
            (http_status, &json!(reason))
        );
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(
            headers.contains_key("retry-after"),
            matches!(http_status, 503 | 507)
        );
        let request = v1::GetRequest {
            namespace: "n".into(),
            id: "a".into(),
            view: 0,
        };
        let status = port.grpc().get(request).await.unwrap_err();
        assert_eq!(status.code(), code);
        assert_eq!(
            status.get_error_details().error_info().unwrap().reason,
            reason
        );
    }
    let port = Port::new(move |_| {
        Ok(Response::Outcome(Outcome::Settled(vec![Err(
            Rejection::LeaseLost { id: id.clone() },
        )])))
    });
    let (status, problem) = port
        .post(
            "/v1/namespaces/n/tasks/a:release",
            json!({"lease_token": "5"}),
        )
        .await;
    assert_eq!(
        (status, &problem["reason"], &problem["id"]),
        (409, &json!("LEASE_LOST"), &json!("a"))
    );
}

#[tokio::test]
async fn unknown_paths_and_methods_are_told_in_the_callers_protocol() {
    let port = Port::agreeable();
    let (status, problem) = port.http(Method::GET, "/v1/nothing", "").await;
    assert_eq!(
        (status, &problem["reason"]),
        (404, &json!("PATH_NOT_FOUND"))
    );
    let (status, problem) = port.http(Method::DELETE, TASKS, "").await;
    assert_eq!(
        (status, &problem["reason"]),
        (405, &json!("METHOD_NOT_ALLOWED"))
    );
    for path in ["/taskstore.v1.Tasks/Explode", "/taskstore.v2.Tasks/Create"] {
        let request = http::Request::post(path)
            .header("content-type", "application/grpc")
            .body(Body::empty())
            .unwrap();
        let response = port.router().oneshot(request).await.unwrap();
        let status = tonic::Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
}

#[tokio::test]
async fn a_caller_that_has_heard_of_a_later_incarnation_is_refused_in_both_protocols() {
    let port = Port::agreeable();
    let header = taskstore_api::INCARNATION_HEADER;
    let stats = |known: &str| {
        http::Request::get("/v1/namespaces/n/queues/q/stats")
            .header(header, known)
            .body(Body::empty())
            .unwrap()
    };
    for (known, status, reason) in [
        ("1", 200, Value::Null),
        ("2", 200, Value::Null),
        ("3", 421, "WRONG_INCARNATION".into()),
        ("70000", 400, "INVALID_FIELD".into()),
    ] {
        let (code, headers, body) = port.send(stats(known)).await;
        assert_eq!(
            (code.as_u16(), &body["reason"]),
            (status, &reason),
            "{known}"
        );
        assert_eq!(headers[header], "2", "every answer says which one it is");
    }
    let asked = |known: &'static str| {
        let mut request = tonic::Request::new(v1::QueueStatsRequest {
            namespace: "n".into(),
            queue: "q".into(),
        });
        request
            .metadata_mut()
            .insert(header, known.parse().unwrap());
        request
    };
    let answer = port.grpc().queue_stats(asked("2")).await.unwrap();
    assert_eq!(answer.metadata().get(header).unwrap(), "2");
    let refused = port.grpc().queue_stats(asked("3")).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    let details = refused.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "WRONG_INCARNATION");
    assert_eq!(refused.metadata().get(header).unwrap(), "2");
}
