//! Writes the CRDs into the chart: `cargo run -p taskstore-crds --bin crdgen`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/taskstore-crds/templates");
    for definition in crds::schema::definitions() {
        std::fs::write(chart.join(definition.file), definition.yaml())?;
    }
    Ok(())
}
