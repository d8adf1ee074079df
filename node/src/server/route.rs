//! Which operation a path and method mean. A verb follows the last `:` of the last segment, which no
//! router of parameters can split; so one function does it, and everything else asks that function.

use http::Method;
use percent_encoding::percent_decode_str;

use super::error::{Case, Problem};

/// An operation and what its path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    Create { namespace: String, queue: String },
    CreateBatch { namespace: String, queue: String },
    List { namespace: String, queue: String },
    ClaimQueue { namespace: String, queue: String },
    QueueStats { namespace: String, queue: String },
    Claim { namespace: String },
    SettleBatch { namespace: String },
    Get { namespace: String, id: String },
    Extend { namespace: String, id: String },
    Complete { namespace: String, id: String },
    Fail { namespace: String, id: String },
    Release { namespace: String, id: String },
}

/// The last segment without its verb, and the verb.
pub fn split_verb(segment: &str) -> (&str, Option<&str>) {
    match segment.rsplit_once(':') {
        Some((noun, verb)) => (noun, Some(verb)),
        None => (segment, None),
    }
}

pub fn route(method: &Method, path: &str) -> Result<Route, Problem> {
    let nothing = || {
        Problem::new(
            Case::PathNotFound,
            format!("nothing is served under {path}"),
        )
    };
    let mut segments: Vec<&str> = path
        .strip_prefix("/v1/")
        .ok_or_else(nothing)?
        .split('/')
        .collect();
    let (noun, verb) = split_verb(segments.pop().unwrap_or_default());
    segments.push(noun);
    let segments = segments
        .into_iter()
        .map(decode)
        .collect::<Result<Vec<_>, _>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (post, get) = (*method == Method::POST, *method == Method::GET);
    let (fits, route) = match (segments.as_slice(), verb) {
        (["namespaces", namespace, "queues", queue, "tasks"], verb) => {
            let (namespace, queue) = ((*namespace).to_owned(), (*queue).to_owned());
            match verb {
                None if get => (true, Route::List { namespace, queue }),
                None => (post, Route::Create { namespace, queue }),
                Some("batch") => (post, Route::CreateBatch { namespace, queue }),
                Some("claim") => (post, Route::ClaimQueue { namespace, queue }),
                Some(_) => return Err(nothing()),
            }
        }
        (["namespaces", namespace, "queues", queue, "stats"], None) => {
            let (namespace, queue) = ((*namespace).to_owned(), (*queue).to_owned());
            (get, Route::QueueStats { namespace, queue })
        }
        (["namespaces", namespace, "tasks"], Some(verb)) => {
            let namespace = (*namespace).to_owned();
            match verb {
                "claim" => (post, Route::Claim { namespace }),
                "settle" => (post, Route::SettleBatch { namespace }),
                _ => return Err(nothing()),
            }
        }
        (["namespaces", namespace, "tasks", id], verb) => {
            let (namespace, id) = ((*namespace).to_owned(), (*id).to_owned());
            match verb {
                None => (get, Route::Get { namespace, id }),
                Some("extend") => (post, Route::Extend { namespace, id }),
                Some("complete") => (post, Route::Complete { namespace, id }),
                Some("fail") => (post, Route::Fail { namespace, id }),
                Some("release") => (post, Route::Release { namespace, id }),
                Some(_) => return Err(nothing()),
            }
        }
        _ => return Err(nothing()),
    };
    if fits {
        return Ok(route);
    }
    Err(Problem::new(
        Case::MethodNotAllowed,
        format!("{method} is not served under {path}"),
    ))
}

fn decode(segment: &str) -> Result<String, Problem> {
    match percent_decode_str(segment).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(Problem::field("path", "must be UTF-8 once percent-decoded")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_operation() {
        let (namespace, queue, id) = ("n".to_owned(), "q".to_owned(), "a.b~c-1".to_owned());
        let n = || namespace.clone();
        let in_queue = || (n(), queue.clone());
        let of_task = || (n(), id.clone());
        let table = [
            (Method::POST, "/v1/namespaces/n/queues/q/tasks", {
                let (namespace, queue) = in_queue();
                Route::Create { namespace, queue }
            }),
            (Method::POST, "/v1/namespaces/n/queues/q/tasks:batch", {
                let (namespace, queue) = in_queue();
                Route::CreateBatch { namespace, queue }
            }),
            (Method::GET, "/v1/namespaces/n/queues/q/tasks", {
                let (namespace, queue) = in_queue();
                Route::List { namespace, queue }
            }),
            (Method::POST, "/v1/namespaces/n/queues/q/tasks:claim", {
                let (namespace, queue) = in_queue();
                Route::ClaimQueue { namespace, queue }
            }),
            (Method::GET, "/v1/namespaces/n/queues/q/stats", {
                let (namespace, queue) = in_queue();
                Route::QueueStats { namespace, queue }
            }),
            (
                Method::POST,
                "/v1/namespaces/n/tasks:claim",
                Route::Claim { namespace: n() },
            ),
            (
                Method::POST,
                "/v1/namespaces/n/tasks:settle",
                Route::SettleBatch { namespace: n() },
            ),
            (Method::GET, "/v1/namespaces/n/tasks/a.b~c-1", {
                let (namespace, id) = of_task();
                Route::Get { namespace, id }
            }),
            (Method::POST, "/v1/namespaces/n/tasks/a.b~c-1:extend", {
                let (namespace, id) = of_task();
                Route::Extend { namespace, id }
            }),
            (Method::POST, "/v1/namespaces/n/tasks/a.b%7ec-1:complete", {
                let (namespace, id) = of_task();
                Route::Complete { namespace, id }
            }),
            (Method::POST, "/v1/namespaces/n/tasks/a.b~c-1:fail", {
                let (namespace, id) = of_task();
                Route::Fail { namespace, id }
            }),
            (Method::POST, "/v1/namespaces/n/tasks/a.b~c-1:release", {
                let (namespace, id) = of_task();
                Route::Release { namespace, id }
            }),
        ];
        for (method, path, expected) in table {
            assert_eq!(route(&method, path), Ok(expected), "{method} {path}");
        }
    }

    #[test]
    fn other_paths_and_methods_are_told_apart() {
        let table = [
            (Method::GET, "/", Case::PathNotFound),
            (Method::GET, "/v1/", Case::PathNotFound),
            (Method::GET, "/v2/namespaces/n/tasks/a", Case::PathNotFound),
            (Method::POST, "/v1/namespaces/n/tasks", Case::PathNotFound),
            (
                Method::POST,
                "/v1/namespaces/n/tasks/a:explode",
                Case::PathNotFound,
            ),
            (
                Method::POST,
                "/v1/namespaces/n/queues/q/tasks:claim/",
                Case::PathNotFound,
            ),
            (
                Method::DELETE,
                "/v1/namespaces/n/tasks/a",
                Case::MethodNotAllowed,
            ),
            (
                Method::GET,
                "/v1/namespaces/n/queues/q/tasks:claim",
                Case::MethodNotAllowed,
            ),
            (
                Method::PUT,
                "/v1/namespaces/n/queues/q/tasks",
                Case::MethodNotAllowed,
            ),
            (
                Method::GET,
                "/v1/namespaces/n/tasks/%ff",
                Case::InvalidField,
            ),
        ];
        for (method, path, case) in table {
            assert_eq!(
                route(&method, path).map_err(|problem| problem.case),
                Err(case),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn the_verb_follows_the_last_colon() {
        assert_eq!(split_verb("a:b:complete"), ("a:b", Some("complete")));
        assert_eq!(split_verb("a%3Ab"), ("a%3Ab", None));
        assert_eq!(split_verb(":"), ("", Some("")));
    }
}
