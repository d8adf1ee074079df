//! Compiles the protocol with protox, so that no protoc has to be installed.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = ["taskstore/v1/tasks.proto", "taskstore/v1/admin.proto"];
    let descriptors = protox::compile(protos, ["proto"])?;
    println!("cargo::rerun-if-changed=proto");
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
