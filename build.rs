//! Compiles `proto/onnx.proto`; `src/onnx/proto.rs` includes the result.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/onnx.proto");
    let mut files = protox::compile(["proto/onnx.proto"], ["proto"])?;
    // Its comments would become doc comments full of what rustdoc takes for code and links.
    for file in &mut files.file {
        file.source_code_info = None;
    }
    // Bytes share the buffer that the message was decoded from, so weights are not copied twice.
    prost_build::Config::new().bytes(["."]).compile_fds(files)?;
    Ok(())
}
