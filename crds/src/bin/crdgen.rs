//! Prints the CRD as YAML: `cargo run -p taskstore-crds --bin crdgen > charts/taskstore-crds/templates/taskstoreclusters.yaml`.

fn main() {
    print!("{}", crds::schema::crd_yaml());
}
