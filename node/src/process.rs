//! What the kernel says of a process: the memory it holds and what it has written.

use std::fs;
use std::io;

use serde::Serialize;

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    pub resident_bytes: u64,
    /// Of them, those that no file stands behind: the heap and the stacks.
    pub anonymous_bytes: u64,
    /// The most that was resident at any time.
    pub resident_bytes_max: u64,
}

pub fn memory(pid: u32) -> io::Result<Memory> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = |name: &str| number(&status, name).map(|number| number * 1024);
    Ok(Memory {
        resident_bytes: kilobytes("VmRSS:")?,
        anonymous_bytes: kilobytes("RssAnon:")?,
        resident_bytes_max: kilobytes("VmHWM:")?,
    })
}

/// Bytes that the process has caused to be written to disks.
pub fn written_bytes(pid: u32) -> io::Result<u64> {
    number(
        &fs::read_to_string(format!("/proc/{pid}/io"))?,
        "write_bytes:",
    )
}

/// Of a line `name number [unit]`.
fn number(text: &str, name: &str) -> io::Result<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let number = value.and_then(|value| value.split_whitespace().next());
    let number = number.and_then(|number| number.parse().ok());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_memory_of_both_kinds() {
        let memory = memory(std::process::id()).expect("this process is there");
        assert!(memory.anonymous_bytes > 0, "{memory:?}");
        assert!(memory.resident_bytes > memory.anonymous_bytes, "{memory:?}");
        assert!(
            memory.resident_bytes_max >= memory.resident_bytes,
            "{memory:?}"
        );
    }

    #[test]
    fn a_number_is_found_by_its_whole_name() {
        let io = "wchar: 9\nwrite_bytes: 512\ncancelled_write_bytes: 7\n";
        assert_eq!(number(io, "write_bytes:").expect("it is there"), 512);
        assert!(number(io, "read_bytes:").is_err());
    }
}
