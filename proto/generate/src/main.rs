//! Compiles `proto/onnx.proto` into `src/onnx/schema.rs`: `cargo run --manifest-path proto/generate/Cargo.toml`.
//! The result is checked in, so that a build of samebit needs no protobuf compiler.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let mut files = protox::compile([format!("{root}/proto/onnx.proto")], [format!("{root}/proto")])?;
    // Its comments would become doc comments full of what rustdoc takes for code and links.
    for file in &mut files.file {
        file.source_code_info = None;
    }
    let out = tempfile::tempdir()?;
    // Bytes share the buffer that the message was decoded from, so weights are not copied twice.
    prost_build::Config::new().bytes(["."]).out_dir(out.path()).compile_fds(files)?;
    std::fs::copy(out.path().join("onnx.rs"), format!("{root}/src/onnx/schema.rs"))?;
    Ok(())
}
