//! Every cap of a member, in one place. A bound that a caller meets is named in the error it causes.

/// Largest payload of one task, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Largest result of one task, in bytes. Results stay in memory while a finished row is kept.
pub const RESULT_BYTES_MAX: usize = 64 << 10;
/// Longest error text kept for a failed attempt, in bytes.
pub const ERROR_BYTES_MAX: usize = 4 << 10;
/// Longest task id, in characters.
pub const TASK_ID_CHARS_MAX: usize = 128;
/// Longest namespace or queue, in characters (a DNS label, so that they fit into names).
pub const NAME_CHARS_MAX: usize = 63;
/// Longest claim id or worker name, in bytes.
pub const CLAIM_ID_BYTES_MAX: usize = 64;
/// Longest kind or content type, in bytes.
pub const KIND_BYTES_MAX: usize = 128;
/// Items in one batch of creates or settles, and tasks in one claim.
pub const BATCH_ITEMS_MAX: usize = 1_000;
/// Payload bytes of one batch of creates: one Raft entry must hold it (4 MiB).
pub const BATCH_BYTES_MAX: usize = 3 << 20;
/// Payload bytes that one claim may carry.
pub const CLAIM_BYTES_MAX: usize = 3 << 20;
/// Bytes of one answer that holds tasks, a claim's or a page's; one task is always given. gRPC clients
/// take 4 MiB unless they are told otherwise.
pub const ANSWER_BYTES_MAX: usize = (4 << 20) - (64 << 10);
/// What a task takes in an answer beside its kind, content type, error and bytes, at most.
pub const ANSWER_ROW_BYTES: usize = 512;
/// Queues that one claim may name.
pub const CLAIM_QUEUES_MAX: usize = 16;
/// Longest wait of a claim, in milliseconds.
pub const CLAIM_WAIT_MS_MAX: u64 = 60_000;
/// Longest that a call may take besides a claim's wait, in milliseconds.
pub const CALL_MS_MAX: u64 = 10_000;
/// Bytes of the headers of one client request.
pub const REQUEST_HEADER_BYTES_MAX: usize = 16 << 10;
/// Requests of one client connection at a time.
pub const CONNECTION_REQUESTS_MAX: u32 = 1_024;
/// Connections of the health port.
pub const HEALTH_CONNECTIONS_MAX: usize = 64;
/// Shortest and longest lease, in milliseconds (a day).
pub const LEASE_MS_MIN: u64 = 100;
pub const LEASE_MS_MAX: u64 = 24 * 3600 * 1000;
/// Lease of a task that names none, in milliseconds.
pub const LEASE_MS_DEFAULT: u64 = 30_000;
/// Attempts of a task that names none, and the most it may name.
pub const ATTEMPTS_DEFAULT: u32 = 10;
pub const ATTEMPTS_MAX: u32 = 1_000;
/// Leases that may run out before a task is discarded.
pub const ABANDONMENTS_MAX: u32 = 5;
/// Highest priority number (0 runs first).
pub const PRIORITY_MAX: u8 = 9;
/// Farthest `not_before`, in milliseconds from now (ten years).
pub const NOT_BEFORE_AHEAD_MS_MAX: u64 = 10 * 365 * 24 * 3600 * 1000;
/// Tasks in one page of a list, and the page size of a list that names none.
pub const PAGE_SIZE_MAX: usize = 1_000;
pub const PAGE_SIZE_DEFAULT: usize = 100;
/// Age at which a finished row may go, in milliseconds, and the newest rows of a queue that stay.
pub const FINISHED_AGE_MS_MAX: u64 = 24 * 3600 * 1000;
pub const FINISHED_ROWS_MAX: u64 = 1_000_000;
/// Age at which a caller's UUIDv7 is refused for a create, in milliseconds: its finished row may be gone.
pub const ID_AGE_MS_MAX: u64 = 24 * 3600 * 1000;
/// Queues of one store, all namespaces together.
pub const QUEUES_MAX: usize = 100_000;
/// Rows of tasks, finished ones included. A full store refuses creates and still accepts settles.
pub const TASK_ROWS_MAX: u64 = 4_000_000;
/// Payload bytes of all tasks that are not finished. They lie on the disk.
pub const PAYLOADS_BYTES_MAX: u64 = 4 << 30;
/// Bytes of results and error texts kept in the rows of tasks.
pub const RESULTS_BYTES_MAX: u64 = 256 << 20;
/// Rows one page of a list may look at; a page that finds few matches ends early with a token.
pub const LIST_SCAN_ROWS_MAX: usize = 20_000;
/// Operations whose reserved member numbers are remembered, and numbers of one reservation.
pub const RESERVATIONS_MAX: usize = 64;
pub const RESERVATION_MEMBERS_MAX: u32 = 64;
/// Work done by one tick: expired leases, due tasks and finished rows each.
pub const TICK_ITEMS_MAX: usize = 10_000;

/// Bytes of one Raft entry, and of one batch of entries sent to a follower.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;
pub const APPEND_BYTES_MAX: usize = 1 << 20;
/// Bytes of one encoded command: an entry holds it with its own head and the two clocks.
pub const COMMAND_BYTES_MAX: usize = ENTRY_BYTES_MAX - 64;
/// Bytes of one frame between members.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// Bytes of one chunk of a snapshot on its way to a follower.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Commands gathered into one Raft entry, and their bytes.
pub const ENTRY_COMMANDS_MAX: usize = 1_024;
pub const ENTRY_COMMAND_BYTES_MAX: usize = 1 << 20;
/// Commands waiting at the door of the leader, and their bytes; the next one is answered
/// RESOURCE_EXHAUSTED.
pub const PROPOSALS_WAITING_MAX: usize = 16_384;
pub const PROPOSALS_WAITING_BYTES_MAX: usize = 64 << 20;
/// Claims parked on the leader.
pub const WAITERS_MAX: usize = 16_384;
/// Bytes of one client request's body.
pub const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Client connections of one member.
pub const CONNECTIONS_MAX: usize = 4_096;
/// Requests forwarded to the leader by one member at a time.
pub const FORWARDS_MAX: usize = 16_384;
/// First frame of a connection between members, read before its sender is known.
pub const HELLO_BYTES_MAX: usize = 4 << 10;
/// Connections between members that one member accepts, and handshakes it runs at a time.
pub const PEER_CONNECTIONS_MAX: usize = 256;
pub const PEER_HANDSHAKES_MAX: usize = 64;
/// Heartbeats, votes and hand-overs of one peer in flight.
pub const CONTROL_CALLS_MAX: usize = 256;
/// Append requests in flight to one follower.
pub const APPENDS_IN_FLIGHT_MAX: usize = 64;

/// Recent log entries kept in memory, in bytes; entries waiting for their flush may take as much again.
pub const LOG_RING_BYTES_MAX: usize = 64 << 20;
/// Silence after which an empty frame carries `synced_to` forward, in milliseconds.
pub const LOG_QUIET_MS: u64 = 20;
/// Under load the log notes its last frame in a file of its own this often, in milliseconds.
pub const LOG_MARK_MS: u64 = 1_000;
/// Bytes of a log's disk space that are reserved when nobody says otherwise.
pub const LOG_BUDGET_BYTES: u64 = 1 << 30;
/// Size of a log segment, in MiB: a small budget has small ones, and each holds the largest entry.
pub const LOG_SEGMENT_MIB_MIN: u64 = 5;
pub const LOG_SEGMENT_MIB_MAX: u64 = 64;
/// Share of the log's budget, in percent, at which creates are refused on every voter.
pub const LOG_HIGH_WATER_PERCENT: u64 = 80;
/// Connections of the operator.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Free bytes of the volume, beside the reserved log and the image's room to grow, below which a member is
/// nearly full.
pub const FREE_BYTES_MIN: u64 = 64 << 20;
/// Smallest log that works, in bytes: eight segments that each hold the largest entry.
pub const LOG_BUDGET_BYTES_MIN: u64 = 64 << 20;

/// The cache that sled is given for the image, in bytes. No bound: a scan was seen to leave 155 MiB.
pub const IMAGE_CACHE_BYTES: u64 = 16 << 20;
/// A batch of the image starts at so many bytes in memory, or so many changed rows: rows are written in one
/// atomic piece, during which cold payloads cannot be read.
pub const IMAGE_BATCH_BYTES: u64 = 32 << 20;
pub const IMAGE_BATCH_CHANGES: usize = 2_000;
/// With so many bytes not yet in the image apply waits for it. The smallest volume that the CRD takes has
/// room for twice as much.
pub const IMAGE_DIRTY_BYTES_MAX: u64 = 256 << 20;
/// Rows of one piece when the image is rebuilt.
pub const IMAGE_REBUILD_ROWS: usize = 2_000;
/// Free bytes of the volume below which the image waits; a batch needs twice its payloads beside them.
pub const IMAGE_FREE_BYTES_MIN: u64 = 32 << 20;

/// Bytes of one part of a backup, parts on their way to the bucket at a time, and parts read ahead of the one
/// that is looked at.
pub const BACKUP_PART_BYTES: u64 = 4 << 20;
pub const BACKUP_PARTS_IN_FLIGHT: usize = 4;
pub const BACKUP_PARTS_READ_AHEAD: usize = 2;
/// Parts of one backup: far more than the largest state needs.
pub const BACKUP_PARTS_MAX: usize = 16_384;
/// Bytes of one manifest.
pub const BACKUP_MANIFEST_BYTES_MAX: u64 = 4 << 20;
/// Longest name of a backup, in characters: the name of a Kubernetes object.
pub const BACKUP_NAME_CHARS_MAX: usize = 253;
/// Longest cluster id that names a folder of a bucket, in characters.
pub const BACKUP_CLUSTER_ID_CHARS_MAX: usize = 63;
/// Longest URL of a destination, in characters, and bytes of its certificates.
pub const BACKUP_URL_CHARS_MAX: usize = 1_024;
pub const BACKUP_CA_BYTES_MAX: usize = 256 << 10;
/// Bytes of one file of credentials.
pub const BACKUP_CREDENTIAL_BYTES_MAX: u64 = 64 << 10;
/// Names that one listing of a bucket may give.
pub const BACKUPS_LISTED_MAX: usize = 100_000;
/// Manifests of a listing that are read at a time.
pub const BACKUP_MANIFESTS_IN_FLIGHT: usize = 4;
/// Longest that one backup may take, in milliseconds (a day), and the age at which what never got a manifest
/// may be deleted: nobody can still be writing it.
pub const BACKUP_MS_MAX: u64 = 24 * 3600 * 1000;
pub const BACKUP_UNFINISHED_AGE_MS_MIN: u64 = 7 * BACKUP_MS_MAX;
/// Entries of one segment of a shipped log, in bytes, and bytes of one segment: the last entry may pass the
/// first bound.
pub const BACKUP_SEGMENT_BYTES: usize = 4 << 20;
pub const BACKUP_SEGMENT_BYTES_MAX: usize = BACKUP_SEGMENT_BYTES + ENTRY_BYTES_MAX + (64 << 10);
/// Bytes of the head of one segment.
pub const BACKUP_SEGMENT_HEAD_BYTES_MAX: usize = 4 << 10;
/// Segments of one lineage: almost five months of one every four seconds. Their names are 8 bytes of memory
/// each.
pub const BACKUP_SEGMENTS_LISTED_MAX: usize = 3_200_000;
/// Segments of other chains that are looked at where one ends. As many behind the oldest backup are kept.
pub const BACKUP_SEGMENTS_BESIDE_MAX: usize = 8;
/// Longest reason that is passed on from a store, in characters: some answer with a page of HTML.
pub const BACKUP_REASON_CHARS_MAX: usize = 400;
/// Tries of one request after the first.
pub const BACKUP_RETRIES_MAX: usize = 8;
/// Places of payloads that a replay notes, beyond twice those of tasks that are there, before it forgets the others:
/// 1 MiB.
pub const REPLAY_PLACES_MORE: usize = 65_536;
