//! What people see first, on a part of its input: the demo, with both its kills.

use super::Story;
use crate::demo;
use anyhow::{Result, ensure};

/// Work for some seconds on either side of each kill.
const TASKS: usize = 6_000;

pub async fn short(story: Story) -> Result<()> {
    let report = demo::play(&story.cluster, &story.namespace, Some(TASKS)).await?;
    for (name, value) in report.figures() {
        story.figures.add(name, value);
    }
    ensure!(
        report.is_good(),
        "{}\n{}",
        report.table(),
        report.last_line()
    );
    Ok(())
}
