//! Generates the server's Rust code for the wire protocol from its `.proto` files, with Rust alone: `protox` parses,
//! `tonic-prost-build` writes. The result is checked in, so that building the server needs none of this.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that hold a service or are reached from one that does.
const FILES: [&str; 6] =
    ["kv.proto", "auth.proto", "rpc.proto", "lock.proto", "election.proto", "health.proto"];

/// Writes the generated code, or, with `check`, only compares it with what is checked in.
///
/// # Errors
/// A `.proto` file is wrong, a file cannot be read or written, or (with `check`) the code is not current.
pub(crate) fn run(check: bool) -> Result<(), Box<dyn Error>> {
    let server = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/harmony-server");
    let checked_in = server.join("src/proto");
    let fresh = PathBuf::from(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
        .join(format!("xtask-proto-{}", std::process::id()));
    fs::create_dir_all(&fresh)?;
    let result = generate(&server.join("proto"), &fresh)
        .and_then(|()| if check { compare(&checked_in, &fresh) } else { replace(&checked_in, &fresh) });
    fs::remove_dir_all(&fresh)?;
    result
}

fn generate(protos: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(FILES, [protos])?;
    // For the JSON gateway, which reads messages by their descriptors; without the comments.
    let mut compiler = protox::Compiler::new([protos])?;
    compiler.include_imports(true).open_files(FILES)?;
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .out_dir(out)
        .bytes(".")
        .extern_path(".mvccpb.KeyValue", "::harmony_types::KeyValue")
        .extern_path(".mvccpb.Event", "::harmony_types::Event")
        .generate_default_stubs(true)
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)?;
    Ok(())
}

fn read(dir: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>, Box<dyn Error>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().ok_or("a file without a name")?;
        files.insert(name.into(), fs::read(&path)?);
    }
    Ok(files)
}

fn compare(checked_in: &Path, fresh: &Path) -> Result<(), Box<dyn Error>> {
    let (old, new) = (read(checked_in)?, read(fresh)?);
    let stale: Vec<String> = old
        .keys()
        .chain(new.keys().filter(|name| !old.contains_key(*name)))
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| name.display().to_string())
        .collect();
    if stale.is_empty() {
        return Ok(());
    }
    Err(format!("not current: {}: run `cargo xtask proto` and commit", stale.join(", ")).into())
}

fn replace(checked_in: &Path, fresh: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(checked_in)?;
    let files = read(fresh)?;
    for name in read(checked_in)?.keys().filter(|name| !files.contains_key(*name)) {
        fs::remove_file(checked_in.join(name))?;
    }
    for (name, content) in files {
        fs::write(checked_in.join(name), content)?;
    }
    Ok(())
}
