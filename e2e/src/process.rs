//! Runs other programs and turns their failures into errors that say what was run and what it said.

use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Debian keeps system tools where an ordinary user's PATH does not look.
const SYSTEM_FOLDERS: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Where programs are looked for: the user's PATH, then the folders of system tools.
pub fn search_path() -> OsString {
    let own = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&own).chain(SYSTEM_FOLDERS.iter().map(Into::into));
    std::env::join_paths(folders).expect("folders of a split PATH hold no separator")
}

/// The file that a program's name stands for, if it is installed.
pub fn find(name: &str) -> Option<std::path::PathBuf> {
    std::env::split_paths(&search_path())
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A program with arguments; `output` and `feed` run it to its end.
pub fn program<I, S>(name: impl AsRef<OsStr>, arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(name);
    command
        .args(arguments)
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Splits a line at spaces: for calls whose arguments never hold one.
pub fn line(text: &str) -> Command {
    let mut words = text.split_whitespace();
    program(words.next().unwrap_or_default(), words)
}

/// Runs to the end; standard output when it succeeded, else an error with both outputs.
pub async fn output(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let done = command
        .output()
        .await
        .with_context(|| format!("start {shown}"))?;
    finished(&shown, done)
}

/// As `output`, with `input` on standard input.
pub async fn feed(command: &mut Command, input: &str) -> Result<String> {
    let shown = show(command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {shown}"))?;
    let mut pipe = child.stdin.take().expect("standard input was just piped");
    let (written, done) = tokio::join!(
        async move { pipe.write_all(input.as_bytes()).await },
        child.wait_with_output()
    );
    let text = finished(&shown, done?)?;
    written.with_context(|| format!("write to {shown}"))?;
    Ok(text)
}

/// Runs a line, see `line` and `output`.
pub async fn run(text: &str) -> Result<String> {
    output(&mut line(text)).await
}

fn finished(shown: &str, done: std::process::Output) -> Result<String> {
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&done.stderr);
    bail!(
        "`{shown}` failed ({}):\n{}{}",
        done.status,
        text,
        errors.trim_end()
    )
}

fn show(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut text = words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    if text.len() > 300 {
        text.truncate(text.floor_char_boundary(300));
        text.push('…');
    }
    text
}
