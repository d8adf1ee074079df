//! The query of a path: each parameter once, none unknown.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use taskstore_api::v1;

use super::error::Problem;
use super::json;

pub struct Query(BTreeMap<String, String>);

impl Query {
    pub fn read(query: &str) -> Result<Query, Problem> {
        let mut parameters = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if parameters.insert(name.clone(), value).is_some() {
                return Err(Problem::field(name, "must be given once at most"));
            }
        }
        Ok(Query(parameters))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Refuses what nobody took.
    pub fn nothing(self) -> Result<(), Problem> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(Problem::field(name, "is not a parameter of this path")),
        }
    }

    pub fn get(mut self) -> Result<v1::View, Problem> {
        let view = self.view()?;
        self.nothing()?;
        Ok(view)
    }

    pub fn list(mut self, namespace: String, queue: String) -> Result<v1::ListRequest, Problem> {
        let page_size = match self.take("page_size") {
            None => 0,
            Some(text) => text.parse().map_err(|_| {
                Problem::field(
                    "page_size",
                    format!("must be a whole number, 0 or more, and is {text:?}"),
                )
            })?,
        };
        let states = match self.take("states") {
            None => Vec::new(),
            Some(names) => names.split(',').map(state).collect::<Result<_, _>>()?,
        };
        if self.take("filter").is_some() {
            return Err(Problem::field(
                "filter",
                "is not supported; states=AVAILABLE,RUNNING selects by state",
            ));
        }
        let request = v1::ListRequest {
            namespace,
            queue,
            states,
            page_size,
            page_token: self.take("page_token").unwrap_or_default(),
            view: self.view()?.into(),
        };
        self.nothing()?;
        Ok(request)
    }

    fn view(&mut self) -> Result<v1::View, Problem> {
        match self.take("view").as_deref() {
            None | Some("BASIC") => Ok(v1::View::Basic),
            Some("FULL") => Ok(v1::View::Full),
            Some(other) => Err(Problem::field(
                "view",
                format!("must be BASIC or FULL, and is {other:?}"),
            )),
        }
    }
}

fn state(name: &str) -> Result<i32, Problem> {
    json::state_of(name).map(i32::from).ok_or_else(|| {
        let bound =
            "must be some of SCHEDULED, AVAILABLE, RUNNING, RETRYABLE, COMPLETED, DISCARDED";
        Problem::field("states", format!("{bound}, and has {name:?}"))
    })
}

fn decode(text: &str) -> Result<String, Problem> {
    let spaced = text.replace('+', " ");
    match percent_decode_str(&spaced).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(Problem::field(
            "query",
            "must be UTF-8 once percent-decoded",
        )),
    }
}
