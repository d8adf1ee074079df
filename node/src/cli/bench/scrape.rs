//! What the members say of their images on the health port, watched while something goes on.

use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy, Default)]
pub struct ImageGauges {
    pub lag_entries: u64,
    pub dirty_bytes: u64,
}

impl ImageGauges {
    fn raise(&mut self, other: ImageGauges) {
        self.lag_entries = self.lag_entries.max(other.lag_entries);
        self.dirty_bytes = self.dirty_bytes.max(other.dirty_bytes);
    }

    /// The largest among the members, now.
    pub async fn of(addresses: &[String]) -> anyhow::Result<ImageGauges> {
        let mut most = ImageGauges::default();
        for address in addresses {
            let text = metrics(address).await?;
            most.raise(ImageGauges {
                lag_entries: gauge(&text, "taskstore_image_lag_entries")?,
                dirty_bytes: gauge(&text, "taskstore_image_dirty_bytes")?,
            });
        }
        Ok(most)
    }

    /// The largest that any member has shown during this work.
    pub async fn during<T>(
        addresses: &[String],
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(T, ImageGauges)> {
        let mut work = pin!(work);
        let mut most = ImageGauges::default();
        loop {
            let look = async {
                tokio::time::sleep(LOOK_EVERY).await;
                ImageGauges::of(addresses).await
            };
            tokio::select! {
                done = &mut work => return Ok((done?, most)),
                seen = look => most.raise(seen?),
            }
        }
    }
}

async fn metrics(address: &str) -> anyhow::Result<String> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with the sender.
    tokio::spawn(async move { connection.await.is_ok() });
    let request = Request::get("/metrics")
        .header(header::HOST, address)
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let body = answer.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}

fn gauge(text: &str, name: &str) -> anyhow::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.with_context(|| format!("{name} is not told"))?;
    Ok(value.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn the_gauges_that_are_watched_are_told_by_members() {
        let metrics = Metrics::default();
        metrics.gauges.image_lag_entries.set(7);
        metrics.gauges.image_dirty_bytes.set(9);
        let text = metrics.text();
        let of = |name| gauge(&text, name).expect("it is told");
        assert_eq!(of("taskstore_image_lag_entries"), 7);
        assert_eq!(of("taskstore_image_dirty_bytes"), 9);
    }
}
