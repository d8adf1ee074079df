//! Children: this test program again. They say what happens line by line, and are given up when they fall
//! silent.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

const TASK: &str = "IMAGE_FAULTS_TASK";
const SEED: &str = "IMAGE_FAULTS_SEED";
/// Lines of a child begin so; the test harness prints others.
const MARK: char = '@';
/// As in production, where a failed storage ends the process.
pub const FATAL: i32 = 74;

/// Of this child.
pub fn task() -> Option<String> {
    std::env::var(TASK).ok()
}

/// From the environment, or a new one. Printed with the line that runs the same again.
pub fn seed() -> u64 {
    let given = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("again: {SEED}={seed} cargo test --workspace --test image_faults");
    seed
}

/// Says a line to the parent.
pub fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{MARK}{line}").expect("the parent reads");
    out.flush().expect("the parent reads");
}

/// How a child goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Line(String),
    /// With its code; None: a signal.
    Ended(Option<i32>),
    /// Nothing for so long.
    Silent,
}

/// It is killed when this goes.
pub struct Child {
    process: std::process::Child,
    lines: Receiver<String>,
}

impl Child {
    pub fn start(task: &str) -> Child {
        let program = std::env::current_exe().expect("this program");
        Child::of(Command::new(program).args(arguments()), task)
    }

    /// A command that runs this program with these arguments somewhere in it.
    pub fn of(command: &mut Command, task: &str) -> Child {
        let stderr = match std::env::var_os("IMAGE_FAULTS_STDERR") {
            Some(_) => Stdio::inherit(),
            None => Stdio::null(),
        };
        let mut process = command
            .env(TASK, task)
            // sled panics often, and to look up names takes longer than all else.
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("a child");
        let out = BufReader::new(process.stdout.take().expect("piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix(MARK)
                    && send.send(line.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        Child { process, lines }
    }

    pub fn next(&mut self, patience: Duration) -> Said {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Said::Line(line),
            Err(RecvTimeoutError::Timeout) => Said::Silent,
            Err(RecvTimeoutError::Disconnected) => {
                Said::Ended(self.process.wait().expect("it ends").code())
            }
        }
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("it ends");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn arguments() -> [&'static str; 4] {
    ["child", "--exact", "--nocapture", "--test-threads=1"]
}
