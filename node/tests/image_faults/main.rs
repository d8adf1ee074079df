//! The image under faults: damage at rest and while running, full disks, kill -9. sled may panic, hang or end
//! the process, so every trial runs in a child: this test again, told what to do by its environment.

mod at_rest;
mod children;
mod damage;
mod full_disk;
mod killed;
mod living;
mod member;

/// What the children run; on its own it has nothing to do.
#[test]
fn child() {
    let Some(task) = children::task() else {
        return;
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    let words: Vec<&str> = task.split_whitespace().collect();
    let (what, words) = words.split_first().expect("a task");
    match *what {
        "at-rest" => at_rest::run(words),
        "at-rest-next" => at_rest::run_next(words),
        "living" => living::run(words),
        "living-next" => living::run_next(words),
        "patient" => full_disk::run_patient(words),
        "squeezed" => full_disk::run_squeezed(words),
        "squeezed-next" => full_disk::run_next(words),
        "killed" => killed::run(words),
        other => panic!("no such task: {other}"),
    }
}
