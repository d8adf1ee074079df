//! The client against members that fail in every way: it goes on, and never makes two of one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use taskstore_api::v1::tasks_server::{Tasks, TasksServer};
use taskstore_api::{Endpoints, Failure, INCARNATION_HEADER, TaskStoreClient, Trust, Worker, v1};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

#[derive(Debug, PartialEq)]
enum Seen {
    Create(String),
    Claim(v1::ClaimRequest),
    Extend,
    Complete(v1::CompleteRequest),
    Fail(v1::FailRequest),
}

#[derive(Clone)]
struct Member {
    seen: mpsc::UnboundedSender<Seen>,
    /// Refusals before the good answers.
    answers: Arc<Mutex<VecDeque<Option<Status>>>>,
    /// Tasks for the first claim.
    tasks: Arc<Mutex<Vec<v1::ClaimedTask>>>,
    /// What creates said of the latest incarnation that their callers know.
    known: Arc<Mutex<Vec<Option<u16>>>>,
}

/// That every member of these tests is of.
const INCARNATION: u16 = 2;

fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, "taskstore.dev", HashMap::new());
    Status::with_error_details(code, "refused", details)
}

impl Member {
    fn answer<T>(&self, seen: Seen, answer: T) -> Result<Response<T>, Status> {
        let _ = self.seen.send(seen);
        match self.answers.lock().unwrap().pop_front().flatten() {
            Some(refusal) => Err(refusal),
            None => {
                let mut response = Response::new(answer);
                let metadata = response.metadata_mut();
                metadata.insert(INCARNATION_HEADER, INCARNATION.into());
                Ok(response)
            }
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn not_asked<T>() -> Answer<T> {
    Err(Status::unimplemented("not part of these tests"))
}

#[tonic::async_trait]
impl Tasks for Member {
    async fn create(&self, request: Request<v1::CreateRequest>) -> Answer<v1::CreateResponse> {
        let known = request.metadata().get(INCARNATION_HEADER);
        let known = known.map(|known| known.to_str().unwrap().parse().unwrap());
        self.known.lock().unwrap().push(known);
        let id = request.into_inner().task.unwrap_or_default().id;
        self.answer(
            Seen::Create(id.clone()),
            v1::CreateResponse {
                id,
                revision: 1,
                existed: false,
            },
        )
    }
    async fn claim(&self, request: Request<v1::ClaimRequest>) -> Answer<v1::ClaimResponse> {
        let request = request.into_inner();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        if tasks.is_empty() {
            std::future::pending::<()>().await;
        }
        self.answer(Seen::Claim(request), v1::ClaimResponse { tasks })
    }
    async fn extend(&self, request: Request<v1::ExtendRequest>) -> Answer<v1::ExtendResponse> {
        self.answer(
            Seen::Extend,
            v1::ExtendResponse {
                lease_ms: request.into_inner().lease_ms,
            },
        )
    }
    async fn complete(&self, request: Request<v1::CompleteRequest>) -> Answer<v1::SettleResponse> {
        self.answer(
            Seen::Complete(request.into_inner()),
            v1::SettleResponse::default(),
        )
    }
    async fn fail(&self, request: Request<v1::FailRequest>) -> Answer<v1::SettleResponse> {
        self.answer(
            Seen::Fail(request.into_inner()),
            v1::SettleResponse::default(),
        )
    }
    async fn create_batch(
        &self,
        _: Request<v1::CreateBatchRequest>,
    ) -> Answer<v1::CreateBatchResponse> {
        not_asked()
    }
    async fn release(&self, _: Request<v1::ReleaseRequest>) -> Answer<v1::SettleResponse> {
        not_asked()
    }
    async fn settle_batch(
        &self,
        _: Request<v1::SettleBatchRequest>,
    ) -> Answer<v1::SettleBatchResponse> {
        not_asked()
    }
    async fn get(&self, _: Request<v1::GetRequest>) -> Answer<v1::Task> {
        not_asked()
    }
    async fn list(&self, _: Request<v1::ListRequest>) -> Answer<v1::ListResponse> {
        not_asked()
    }
    async fn queue_stats(
        &self,
        _: Request<v1::QueueStatsRequest>,
    ) -> Answer<v1::QueueStatsResponse> {
        not_asked()
    }
}

struct Running {
    address: String,
    known: Arc<Mutex<Vec<Option<u16>>>>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

async fn member(answers: Vec<Option<Status>>, tasks: Vec<v1::ClaimedTask>) -> Running {
    let (sender, seen) = mpsc::unbounded_channel();
    let member = Member {
        seen: sender,
        answers: Arc::new(Mutex::new(answers.into())),
        tasks: Arc::new(Mutex::new(tasks)),
        known: Arc::default(),
    };
    let known = member.known.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder().add_service(TasksServer::new(member));
    tokio::spawn(server.serve_with_incoming(incoming));
    Running {
        address,
        known,
        seen,
    }
}

fn client(addresses: &[&str]) -> TaskStoreClient {
    let addresses = addresses
        .iter()
        .map(|address| (*address).to_owned())
        .collect();
    TaskStoreClient::connect(&Endpoints {
        addresses,
        trust: Trust::Plain,
    })
    .unwrap()
}

fn create() -> v1::CreateRequest {
    v1::CreateRequest {
        namespace: "n".into(),
        queue: "q".into(),
        task: Some(v1::NewTask::default()),
    }
}

/// Nothing listens on the first port, and no connection is ever given it.
const CLOSED: &str = "127.0.0.1:1";

#[tokio::test]
async fn a_create_is_sent_again_under_the_same_id_until_a_member_takes_it() {
    let refusals = vec![
        Some(refusal(Code::Unavailable, "NO_LEADER")),
        Some(refusal(Code::DeadlineExceeded, "OUTCOME_UNKNOWN")),
        Some(Status::unknown("the connection was lost")),
    ];
    let mut member = member(refusals, Vec::new()).await;
    let created = client(&[CLOSED, &member.address])
        .create(create())
        .await
        .unwrap();
    assert!(!created.id.is_empty());
    for _ in 0..4 {
        assert_eq!(
            member.seen.recv().await,
            Some(Seen::Create(created.id.clone()))
        );
    }
}

#[tokio::test]
async fn a_client_says_which_incarnation_it_has_heard_of_and_leaves_a_member_of_an_earlier_one() {
    let new = member(vec![None, Some(Status::unavailable("away"))], Vec::new()).await;
    let refusal = refusal(Code::FailedPrecondition, "WRONG_INCARNATION");
    let old = member(vec![Some(refusal)], Vec::new()).await;
    let client = client(&[&new.address, &old.address]);
    client.create(create()).await.unwrap();
    client.create(create()).await.unwrap();
    let told = |member: &Running| member.known.lock().unwrap().clone();
    let latest = Some(INCARNATION);
    assert_eq!(told(&new), [None, latest, latest]);
    assert_eq!(told(&old), [latest]);
}

fn full(reason: &str) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, "taskstore.dev", HashMap::new());
    details.set_retry_info(Some(Duration::from_millis(1)));
    Status::with_error_details(Code::ResourceExhausted, "full", details)
}

#[tokio::test]
async fn too_much_work_in_flight_is_waited_out_and_a_full_disk_is_not() {
    let refusals = vec![Some(full("QUOTA")), None, Some(full("DISK_HIGH_WATER"))];
    let mut member = member(refusals, Vec::new()).await;
    let client = client(&[&member.address]);
    client.create(create()).await.unwrap();
    let error = client.create(create()).await.unwrap_err();
    assert_eq!(error.reason(), "DISK_HIGH_WATER");
    for _ in 0..3 {
        member.seen.recv().await.unwrap();
    }
    assert!(member.seen.try_recv().is_err());
}

#[tokio::test]
async fn a_refusal_of_the_store_is_final() {
    let mut member = member(
        vec![Some(refusal(Code::AlreadyExists, "DUPLICATE"))],
        Vec::new(),
    )
    .await;
    let error = client(&[&member.address])
        .create(create())
        .await
        .unwrap_err();
    assert_eq!(
        (error.code, error.reason()),
        (Code::AlreadyExists, "DUPLICATE")
    );
    member.seen.recv().await.unwrap();
    assert!(member.seen.try_recv().is_err());
}

#[tokio::test]
async fn nobody_there_is_an_error_at_the_deadline() {
    let client = client(&[CLOSED]).with_deadline(Duration::from_millis(100));
    let error = client.create(create()).await.unwrap_err();
    assert!(error.message.contains("unreachable"), "{error}");
}

fn claimed(id: &str, lease_ms: u64) -> v1::ClaimedTask {
    let task = v1::Task {
        namespace: "n".into(),
        id: id.into(),
        payload: id.to_owned().into(),
        ..Default::default()
    };
    v1::ClaimedTask {
        task: Some(task),
        lease_token: 5,
        lease_ms,
    }
}

fn worker(client: TaskStoreClient) -> Worker {
    Worker {
        client,
        namespace: "n".into(),
        queues: vec!["q".into()],
        parallel: 8,
        lease_ms: 0,
        wait_ms: 1_000,
        name: "w".into(),
    }
}

#[tokio::test]
async fn a_worker_settles_by_what_its_handler_says() {
    let tasks = vec![
        claimed("good", 60_000),
        claimed("bad", 60_000),
        claimed("panics", 60_000),
    ];
    let mut member = member(Vec::new(), tasks).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let worker = worker(client(&[&member.address]));
    let running = tokio::spawn(async move {
        let handler = |task: v1::Task| async move {
            match task.id.as_str() {
                "good" => Ok(task.payload),
                "bad" => Err(Failure {
                    error: "bad".into(),
                    discard: true,
                    ..Failure::default()
                }),
                other => panic!("{other}"),
            }
        };
        worker.run(handler, async { drop(stopped.await) }).await;
    });
    let Some(Seen::Claim(claim)) = member.seen.recv().await else {
        panic!()
    };
    assert_eq!((claim.tasks_max, claim.worker.as_str()), (8, "w"));
    let (mut completed, mut failed) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        match member.seen.recv().await.unwrap() {
            Seen::Complete(request) => completed.push(request),
            Seen::Fail(request) => {
                failed.push((request.lease.unwrap().id, request.error, request.discard))
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(completed.len(), 1);
    assert_eq!(completed[0].result, "good");
    failed.sort();
    assert_eq!(failed[0], ("bad".into(), "bad".into(), true));
    assert_eq!(
        failed[1],
        ("panics".into(), "the handler panicked".into(), false)
    );
    stop.send(()).unwrap();
    running.await.unwrap();
}

/// Tells when it is dropped.
struct Dropped(mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn a_worker_extends_while_it_works_and_drops_a_run_whose_lease_is_lost() {
    // The claim, two extends, and one that comes too late.
    let answers = vec![
        None,
        None,
        None,
        Some(refusal(Code::FailedPrecondition, "LEASE_LOST")),
    ];
    let mut member = member(answers, vec![claimed("slow", 300)]).await;
    let (sender, mut dropped) = mpsc::unbounded_channel();
    let worker = worker(client(&[&member.address]));
    let running = tokio::spawn(async move {
        let handler = move |_| {
            let guard = Dropped(sender.clone());
            async move {
                std::future::pending::<()>().await;
                drop(guard);
                Ok("never".into())
            }
        };
        worker.run(handler, std::future::pending()).await;
    });
    assert!(matches!(member.seen.recv().await, Some(Seen::Claim(_))));
    for _ in 0..3 {
        assert_eq!(member.seen.recv().await, Some(Seen::Extend));
    }
    dropped.recv().await.unwrap();
    running.abort();
}
