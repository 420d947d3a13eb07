//! What a registry asks of each crate: a complete manifest, and a package that builds from what is in it.

use std::error::Error;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

use crate::step::{Step, run_all};

/// Sorts of crates that the registry knows (crates.io/category_slugs), as far as we use them: a name that it does not
/// know is dropped there without a word.
const CATEGORIES: [&str; 6] = [
    "command-line-utilities",
    "concurrency",
    "database-implementations",
    "development-tools::testing",
    "filesystem",
    "network-programming",
];

/// Files that every package must hold.
const FILES: [&str; 4] = ["Cargo.toml", "LICENSE", "README.md", "Cargo.lock"];

/// No file of a package is larger: fixtures belong into the repository.
const FILE_BYTES_MAX: u64 = 512 << 10;

/// Checks the manifests and what is in the packages; then makes each package and builds it, in the order in which they
/// must be published, unless `quick`.
///
/// # Errors
/// Names the crates that could not be published, and why.
pub(crate) fn run(quick: bool) -> Result<(), Box<dyn Error>> {
    let mut steps =
        vec![Step::new("packages are complete", "cargo xtask publish-check --quick", check_packages)];
    if !quick {
        let build = "packages build from what is in them";
        steps.push(Step::new(build, "cargo xtask publish-check", build_packages));
    }
    run_all("publish-check", steps)
}

/// Has cargo publish everything up to the upload.
fn build_packages() -> Result<(), Box<dyn Error>> {
    let metadata = metadata()?;
    let dir = metadata.target_directory.join("publish");
    forget_earlier_packages(&metadata, dir.as_str())?;
    cargo(&["publish", "--workspace", "--dry-run", "--locked", "--target-dir", dir.as_str()])
}

/// Cargo takes a package of the same version for the same package, and would build against sources and libraries of the
/// check before this one. Sources of packages that were never published lie in its cache under a name without a host.
fn forget_earlier_packages(metadata: &Metadata, dir: &str) -> Result<(), Box<dyn Error>> {
    let mut clean = vec!["clean", "--quiet", "--target-dir", dir];
    for package in published(metadata) {
        clean.extend(["-p", package.name.as_str()]);
    }
    cargo(&clean)?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).ok_or("where is cargo's home?")?;
    let sources = match fs::read_dir(home.join("registry/src")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        listed => listed?,
    };
    for source in sources {
        let source = source?;
        if !source.file_name().as_encoded_bytes().starts_with(b"-") {
            continue;
        }
        for package in published(metadata) {
            let unpacked = source.path().join(format!("{}-{}", package.name, package.version));
            match fs::remove_dir_all(&unpacked) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(format!("{}: {error}", unpacked.display()).into());
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn cargo(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let status = Command::new("cargo").args(arguments).current_dir(crate::root()?).status()?;
    if status.success() { Ok(()) } else { Err(format!("cargo {}: {status}", arguments.join(" ")).into()) }
}

fn metadata() -> Result<Metadata, Box<dyn Error>> {
    Ok(MetadataCommand::new().current_dir(crate::root()?).no_deps().exec()?)
}

/// The part without the registry: what is in the manifests and in the packages.
///
/// # Errors
/// Everything that is missing.
pub(crate) fn check_packages() -> Result<(), Box<dyn Error>> {
    let metadata = metadata()?;
    let mut wrong = manifests(&metadata);
    for package in published(&metadata) {
        wrong.extend(files(package)?);
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// The crates that are for others.
fn published(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    metadata.packages.iter().filter(|package| package.publish.as_ref().is_none_or(|to| !to.is_empty()))
}

/// What the manifests lack, as sentences.
fn manifests(metadata: &Metadata) -> Vec<String> {
    let mut wrong = Vec::new();
    for package in published(metadata) {
        let mut lacks = |what: String| wrong.push(format!("{}: {what}", package.name));
        for (name, there) in [
            ("description", package.description.is_some()),
            ("license", package.license.is_some()),
            ("repository", package.repository.is_some()),
            ("documentation", package.documentation.is_some()),
            ("readme", package.readme.is_some()),
            ("rust-version", package.rust_version.is_some()),
        ] {
            if !there {
                lacks(format!("no {name}"));
            }
        }
        if package.keywords.is_empty() || 5 < package.keywords.len() {
            lacks(format!("{} keywords; the registry takes one to five", package.keywords.len()));
        }
        for keyword in package.keywords.iter().filter(|keyword| !is_keyword(keyword)) {
            lacks(format!(
                "`{keyword}` is no keyword: up to 20 letters, digits, `-`, `_`, `+`, a letter first"
            ));
        }
        if package.categories.is_empty() || 5 < package.categories.len() {
            lacks(format!("{} categories; the registry takes one to five", package.categories.len()));
        }
        for category in package.categories.iter().filter(|category| !CATEGORIES.contains(&category.as_str()))
        {
            lacks(format!("`{category}` is not among the known categories of this check"));
        }
        // Cargo leaves dependencies of tests out when they have no version.
        let needed = package.dependencies.iter().filter(|used| used.kind != DependencyKind::Development);
        for used in needed.filter(|used| used.req.comparators.is_empty()) {
            lacks(format!("the dependency on `{}` has no version", used.name));
        }
    }
    wrong
}

fn is_keyword(text: &str) -> bool {
    text.len() <= 20
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|each| each.is_ascii_alphanumeric() || "-_+".contains(each))
}

/// What is wrong with the files of a package, as sentences.
fn files(package: &Package) -> Result<Vec<String>, Box<dyn Error>> {
    let mut command = Command::new("cargo");
    command.args(["package", "--list", "--allow-dirty", "--offline", "-p", package.name.as_str()]);
    let output = command.current_dir(crate::root()?).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let list = String::from_utf8(output.stdout)?;
    let listed: Vec<&str> = list.lines().collect();
    let dir = package.manifest_path.parent().ok_or("a manifest lies in no directory")?;
    let mut wrong = Vec::new();
    for file in FILES.iter().filter(|file| !listed.contains(file)) {
        wrong.push(format!("{}: {file} is not in the package", package.name));
    }
    for file in listed {
        // Some are made by cargo and lie nowhere.
        let bytes = fs::metadata(dir.join(file)).map_or(0, |found| found.len());
        if FILE_BYTES_MAX < bytes {
            wrong.push(format!("{}: {file} has {bytes} bytes; leave it out of the package", package.name));
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_those_that_the_registry_takes() {
        for keyword in ["wal", "key-value", "c++", "a2345678901234567890"] {
            assert!(is_keyword(keyword), "{keyword}");
        }
        for other in ["", "2pc", "two words", "a23456789012345678901", "größe"] {
            assert!(!is_keyword(other), "{other}");
        }
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let metadata = |package: &str| -> Metadata {
            let text = format!(
                r#"{{"packages": [{package}], "workspace_members": [], "resolve": null, "workspace_root": "/w",
                "target_directory": "/w/target", "version": 1}}"#
            );
            MetadataCommand::parse(text).unwrap()
        };
        let bare = |publish: &str| {
            format!(
                r#"{{"name": "bare", "version": "0.1.0", "id": "bare", "manifest_path": "/w/Cargo.toml", "targets": [],
                "features": {{}}, "keywords": ["2pc"], "categories": ["databases"], "publish": {publish},
                "dependencies": [{{"name": "near", "req": "*", "kind": null, "optional": false,
                "uses_default_features": true, "features": []}}]}}"#
            )
        };
        let wrong = manifests(&metadata(&bare("null")));
        for part in [
            "no description",
            "no license",
            "no repository",
            "no documentation",
            "no readme",
            "no rust-version",
            "`2pc`",
            "`databases`",
            "`near`",
        ] {
            assert!(
                wrong.iter().any(|line| line.starts_with("bare: ") && line.contains(part)),
                "{part}: {wrong:?}"
            );
        }
        assert_eq!(manifests(&metadata(&bare("[]"))), [""; 0], "a crate that is not for others");
    }
}
