//! A start on what a test says was found beside the log.

use taskstore::storage::identity::{Home, Identity};
use taskstore::storage::log::disk::Disk;
use taskstore::storage::start::{
    FoundOnDisk, StartError, StartOptions, Started, begin, decide, facts_of, read_log,
};

pub async fn start<D: Disk>(
    home: &Home,
    expected: &Identity,
    found: FoundOnDisk,
    options: StartOptions<D>,
) -> Result<Started<D>, StartError> {
    let read = read_log(home, options.disk.clone()).await?;
    let decision = decide(&home.stamp(), expected, facts_of(&read), found);
    begin(home, read, decision, options).await
}
