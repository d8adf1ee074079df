//! Prints answers: as text for people, or as the HTTP API's JSON for programs.

use serde::Serialize;
use taskstore_api::{CallError, v1};

use crate::server::json::{answered, state_name};

#[derive(Debug, Clone, Copy)]
pub enum Output {
    Text,
    Json,
}

fn print_json(answer: &impl Serialize) {
    let json = serde_json::to_string_pretty(answer).expect("answers hold nothing that JSON cannot");
    println!("{json}");
}

impl Output {
    pub fn created(self, created: v1::CreateResponse) {
        match self {
            Output::Json => print_json(&answered::Created::from(created)),
            Output::Text if created.existed => println!("{} was there already", created.id),
            Output::Text => println!("{} created", created.id),
        }
    }

    pub fn claimed(self, claimed: v1::ClaimResponse) {
        match self {
            Output::Json => print_json(&answered::Claimed::from(claimed)),
            Output::Text if claimed.tasks.is_empty() => println!("nothing to claim"),
            Output::Text => {
                for claimed in claimed.tasks {
                    let task = claimed.task.unwrap_or_default();
                    println!(
                        "{}  --token {}  leased for {} ms",
                        task.id, claimed.lease_token, claimed.lease_ms
                    );
                    print_bytes("payload", &task.payload);
                }
            }
        }
    }

    pub fn settled(self, settled: v1::SettleResponse) {
        match self {
            Output::Json => print_json(&answered::Settled::from(settled)),
            Output::Text => println!("{}", state_name(settled.state).to_lowercase()),
        }
    }

    pub fn extended(self, extended: v1::ExtendResponse) {
        match self {
            Output::Json => print_json(&answered::Extended {
                lease_ms: extended.lease_ms,
            }),
            Output::Text => println!("leased for {} ms from now", extended.lease_ms),
        }
    }

    pub fn task(self, json: answered::Task, task: &v1::Task) {
        if let Output::Json = self {
            return print_json(&json);
        }
        println!("id            {}", task.id);
        println!("queue         {}/{}", task.namespace, task.queue);
        println!("state         {}", state_name(task.state).to_lowercase());
        println!("kind          {}", task.kind);
        println!("priority      {}", task.priority);
        println!(
            "attempts      {} of {}, abandoned {}",
            task.attempts, task.attempts_max, task.abandonments
        );
        println!("created_ms    {}", task.created_ms);
        println!("finished_ms   {}", task.finished_ms);
        println!("not_before_ms {}", task.not_before_ms);
        println!("lease_ms      {}", task.lease_ms);
        println!("lease_token   {}", task.lease_token);
        println!(
            "payload       {} bytes {}",
            task.payload_bytes, task.content_type
        );
        println!("revision      {}", task.revision);
        if !task.error.is_empty() {
            println!("error         {}", task.error);
        }
        print_bytes("payload", &task.payload);
        print_bytes("result", &task.result);
    }

    pub fn page(self, page: v1::ListResponse, view: v1::View) {
        if let Output::Json = self {
            return print_json(&answered::Page::new(page, view));
        }
        for task in &page.tasks {
            let state = state_name(task.state).to_lowercase();
            println!(
                "{:<40} {state:<10} p{} {:>8} B  {}",
                task.id, task.priority, task.payload_bytes, task.kind
            );
        }
        if page.tasks.is_empty() {
            println!("no tasks");
        }
        if !page.next_page_token.is_empty() {
            println!("more with --page-token {}", page.next_page_token);
        }
    }

    pub fn stats(self, stats: v1::QueueStatsResponse) {
        if let Output::Json = self {
            return print_json(&answered::QueueStats::from(stats));
        }
        println!(
            "scheduled {:>10}   created   {:>12}",
            stats.scheduled, stats.created_total
        );
        println!(
            "available {:>10}   completed {:>12}",
            stats.available, stats.completed_total
        );
        println!(
            "running   {:>10}   failed    {:>12}",
            stats.running, stats.failed_total
        );
        println!(
            "retryable {:>10}   abandoned {:>12}",
            stats.retryable, stats.abandoned_total
        );
        println!(
            "completed {:>10}   discarded {:>12}",
            stats.completed, stats.discarded_total
        );
        println!(
            "discarded {:>10}   payloads  {:>10} B",
            stats.discarded, stats.payload_bytes
        );
        println!("oldest available for {} ms", stats.oldest_available_ms);
    }

    pub fn refusal(self, error: &CallError) {
        match self {
            Output::Text => eprintln!("{error}"),
            Output::Json => {
                let facts: serde_json::Map<_, _> = error
                    .facts
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone().into()))
                    .collect();
                let mut problem =
                    serde_json::json!({"reason": error.reason(), "detail": error.message});
                if let Some(problem) = problem.as_object_mut() {
                    problem.extend(facts);
                }
                eprintln!("{problem:#}");
            }
        }
    }
}

fn print_bytes(what: &str, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => println!("{text}"),
        Err(_) => println!(
            "({what} of {} bytes that are no text; --json shows them)",
            bytes.len()
        ),
    }
}
