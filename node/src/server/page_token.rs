//! Page tokens: opaque to callers, and good only for the list they came from.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::{Case, Problem};
use crate::service::request::List;

const VERSION: u8 = 1;
/// Version, position, check.
const BYTES: usize = 1 + 8 + 8;

/// The token that continues `list` behind `after_seq`.
pub fn write(after_seq: u64, list: &List) -> String {
    let mut token = [0; BYTES];
    token[0] = VERSION;
    token[1..9].copy_from_slice(&after_seq.to_be_bytes());
    token[9..].copy_from_slice(&check(after_seq, list));
    URL_SAFE_NO_PAD.encode(token)
}

pub fn read(token: &str, list: &List) -> Result<u64, Problem> {
    let refused = || {
        let detail =
            "page_token is not one that this list, with the same queue and states, answered";
        Problem::new(Case::PageTokenInvalid, detail)
    };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| refused())?;
    let bytes: [u8; BYTES] = bytes.try_into().map_err(|_| refused())?;
    let position = bytes[1..9].try_into().expect("eight bytes");
    let after_seq = u64::from_be_bytes(position);
    if bytes[0] != VERSION || bytes[9..] != check(after_seq, list) {
        return Err(refused());
    }
    Ok(after_seq)
}

fn check(after_seq: u64, list: &List) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&after_seq.to_be_bytes());
    for text in [list.namespace.as_str(), list.queue.as_str()] {
        hasher.update(text.as_bytes()).update(&[0]);
    }
    for state in &list.states {
        hasher.update(&[*state as u8]);
    }
    *hasher
        .finalize()
        .as_bytes()
        .first_chunk()
        .expect("a BLAKE3 hash has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::command::TaskState;
    use crate::task::id::Name;

    fn list(queue: &str, states: Vec<TaskState>) -> List {
        List {
            namespace: Name::parse("n").unwrap(),
            queue: Name::parse(queue).unwrap(),
            states,
            page_size: 10,
            after_seq: 0,
            with_payload: false,
        }
    }

    #[test]
    fn a_token_continues_its_own_list_only() {
        let mine = list("q", vec![TaskState::Running]);
        let token = write(42, &mine);
        assert_eq!(read(&token, &mine), Ok(42));
        for other in [list("r", vec![TaskState::Running]), list("q", vec![])] {
            assert_eq!(
                read(&token, &other).unwrap_err().case,
                Case::PageTokenInvalid
            );
        }
        for broken in ["", "?", "AAAA", &token[1..], &format!("{token}A")] {
            assert_eq!(
                read(broken, &mine).unwrap_err().case,
                Case::PageTokenInvalid,
                "{broken}"
            );
        }
    }
}
