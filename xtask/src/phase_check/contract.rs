//! The public items of a crate as text: signatures without documentation and without bodies.
//!
//! All modules are walked, private ones too, since what is `pub` in them may be re-exported. Not part of the contract:
//! tests, modules behind the feature `fake`, hidden ones, private fields, bodies, documentation and texts of errors. Part of it:
//! values of constants, derives, protobuf tags, which traits are implemented.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, Block, Fields, ImplItem, Item, ItemImpl, ItemMod, Signature, TraitItem, Visibility};

/// Attributes that a user of the item notices.
const KEPT_ATTRIBUTES: [&str; 7] =
    ["cfg", "default", "derive", "must_use", "non_exhaustive", "prost", "repr"];

/// The contract of the crate whose root is the file `lib`.
///
/// # Errors
/// A source file is missing or does not parse.
pub(super) fn render_crate(name: &str, lib: &Path) -> Result<String, Box<dyn Error>> {
    let mut text =
        String::from("// The frozen contract. `cargo xtask phase-check --bless` rewrites this file.\n");
    let dir = lib.parent().ok_or("a source file without a directory")?;
    render_file(name, lib, dir, &mut text)?;
    Ok(text)
}

/// What differs, line by line; nothing when nothing does.
pub(super) fn compare(golden: &str, current: &str) -> Result<(), String> {
    if golden == current {
        return Ok(());
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (golden.lines().collect(), current.lines().collect());
    let head = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let behind = old[head..].iter().rev().zip(new[head..].iter().rev());
    let tail = behind.take_while(|(old, new)| old == new).count();
    let marked =
        |mark: char, lines: &[&str]| lines.iter().map(|line| format!("{mark} {line}\n")).collect::<String>();
    let place = old[..head].iter().rev().find(|line| line.starts_with("// ")).copied().unwrap_or_default();
    Err(format!(
        "  {place}\n{}{}",
        marked('-', &old[head..old.len() - tail]),
        marked('+', &new[head..new.len() - tail])
    ))
}

/// Appends the module in `file`, whose own modules lie in `dir`, and then those.
fn render_file(path: &str, file: &Path, dir: &Path, text: &mut String) -> Result<(), Box<dyn Error>> {
    let source = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let syntax = syn::parse_file(&source).map_err(|error| format!("{}: {error}", file.display()))?;
    render_module(path, syntax.items, dir, text)
}

fn render_module(path: &str, items: Vec<Item>, dir: &Path, text: &mut String) -> Result<(), Box<dyn Error>> {
    let modules: Vec<ItemMod> = items
        .iter()
        .filter_map(|item| if let Item::Mod(module) = item { Some(module.clone()) } else { None })
        .filter(|module| !module.attrs.iter().any(is_left_out))
        .collect();
    let items: Vec<Item> = items.into_iter().filter_map(public).collect();
    if !items.is_empty() {
        let file = syn::File { shebang: None, attrs: Vec::new(), items };
        text.push_str(&format!("\n// {path}\n\n{}", prettyplease::unparse(&file)));
    }
    for module in modules {
        let name = module.ident.to_string();
        let inner = format!("{path}::{name}");
        match module.content {
            Some((_, items)) => render_module(&inner, items, &dir.join(&name), text)?,
            None => render_file(&inner, &file_of(dir, &name), &dir.join(&name), text)?,
        }
    }
    Ok(())
}

fn file_of(dir: &Path, module: &str) -> PathBuf {
    dir.join(format!("{module}.rs"))
}

/// The item as others see it; `None` when they do not.
fn public(item: Item) -> Option<Item> {
    let mut item = item;
    let (attributes, visibility) = parts(&mut item)?;
    if attributes.iter().any(is_left_out) || visibility.is_some_and(|visibility| !is_public(visibility)) {
        return None;
    }
    keep_attributes(attributes);
    match &mut item {
        Item::Fn(function) => *function.block = empty_block(),
        Item::Struct(structure) => trim_fields(&mut structure.fields),
        Item::Enum(enumeration) => {
            for variant in &mut enumeration.variants {
                keep_attributes(&mut variant.attrs);
                for field in &mut variant.fields {
                    keep_attributes(&mut field.attrs);
                }
            }
        }
        Item::Trait(definition) => definition.items.iter_mut().for_each(trim_trait_item),
        Item::Impl(implementation) => trim_impl(implementation)?,
        // `pub mod` is told by the heading of its items.
        Item::Mod(_) => return None,
        _ => {}
    }
    Some(item)
}

/// Attributes and visibility; the latter is `None` for items that have none. `None` for items of no interest.
fn parts(item: &mut Item) -> Option<(&mut Vec<Attribute>, Option<&Visibility>)> {
    Some(match item {
        Item::Const(item) => (&mut item.attrs, Some(&item.vis)),
        Item::Enum(item) => (&mut item.attrs, Some(&item.vis)),
        Item::Fn(item) => (&mut item.attrs, Some(&item.vis)),
        Item::Impl(item) => (&mut item.attrs, None),
        // Macros are kept whole: what they write cannot be seen from here.
        Item::Macro(item) => (&mut item.attrs, None),
        Item::Mod(item) => (&mut item.attrs, Some(&item.vis)),
        Item::Static(item) => (&mut item.attrs, Some(&item.vis)),
        Item::Struct(item) => (&mut item.attrs, Some(&item.vis)),
        Item::Trait(item) => (&mut item.attrs, Some(&item.vis)),
        Item::Type(item) => (&mut item.attrs, Some(&item.vis)),
        Item::Union(item) => (&mut item.attrs, Some(&item.vis)),
        Item::Use(item) => (&mut item.attrs, Some(&item.vis)),
        _ => return None,
    })
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn keep_attributes(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| KEPT_ATTRIBUTES.iter().any(|kept| attribute.path().is_ident(kept)));
}

/// `#[cfg(test)]`, `#[cfg(feature = "fake")]`, `#[doc(hidden)]`.
fn is_left_out(attribute: &Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    let words = list.tokens.to_string();
    let is_for_tests = words == "test" || words == "feature = \"fake\"";
    (list.path.is_ident("cfg") && is_for_tests) || (list.path.is_ident("doc") && words == "hidden")
}

/// Private named fields go; the fields of a tuple stay, or those behind them would seem to move.
fn trim_fields(fields: &mut Fields) {
    if let Fields::Named(named) = fields {
        named.named =
            std::mem::take(&mut named.named).into_iter().filter(|field| is_public(&field.vis)).collect();
    }
    for field in fields {
        keep_attributes(&mut field.attrs);
    }
}

fn trim_trait_item(item: &mut TraitItem) {
    match item {
        TraitItem::Const(item) => keep_attributes(&mut item.attrs),
        TraitItem::Fn(item) => {
            keep_attributes(&mut item.attrs);
            plain_arguments(&mut item.sig);
            // A body stays as an empty one: it says that the method is provided.
            item.default = item.default.as_ref().map(|_| empty_block());
        }
        TraitItem::Type(item) => keep_attributes(&mut item.attrs),
        _ => {}
    }
}

/// Of an own `impl` the public items, of a trait's its constants and types; an own one without any is nothing.
fn trim_impl(implementation: &mut ItemImpl) -> Option<()> {
    let of_trait = implementation.trait_.is_some();
    let mut kept = Vec::new();
    for mut item in std::mem::take(&mut implementation.items) {
        match &mut item {
            ImplItem::Fn(method) if !of_trait && is_public(&method.vis) => {
                keep_attributes(&mut method.attrs);
                plain_arguments(&mut method.sig);
                method.block = empty_block();
            }
            ImplItem::Const(constant) if of_trait || is_public(&constant.vis) => {
                keep_attributes(&mut constant.attrs)
            }
            ImplItem::Type(_) => {}
            _ => continue,
        }
        kept.push(item);
    }
    implementation.items = kept;
    (of_trait || !implementation.items.is_empty()).then_some(())
}

/// `mut self` and `mut x` are the body's affair.
fn plain_arguments(signature: &mut Signature) {
    for argument in &mut signature.inputs {
        match argument {
            syn::FnArg::Receiver(receiver) if receiver.reference.is_none() => receiver.mutability = None,
            syn::FnArg::Typed(typed) => {
                if let syn::Pat::Ident(name) = &mut *typed.pat {
                    name.mutability = None;
                }
            }
            syn::FnArg::Receiver(_) => {}
        }
    }
}

fn empty_block() -> Block {
    Block { brace_token: syn::token::Brace::default(), stmts: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> String {
        let mut text = String::new();
        render_module("c", syn::parse_file(source).unwrap().items, Path::new("/none"), &mut text).unwrap();
        text
    }

    const SOURCE: &str = r#"
        //! A module.
        use std::fmt;
        pub use inner::Deep;
        /// A limit.
        pub const LIMIT: u64 = 1 << 20;
        const _: () = assert!(LIMIT > 1);
        /// A type.
        #[derive(Clone, Debug, thiserror::Error)]
        #[error("text")]
        pub struct Point { /** x */ pub x: u64, secret: u8 }
        impl Point {
            /// Makes one.
            #[must_use]
            pub fn new(mut x: u64) -> Self { x += 1; Self { x, secret: 0 } }
            fn hidden(&self) {}
        }
        impl fmt::Display for Point { fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { Ok(()) } }
        pub(crate) struct Private;
        pub trait Log { fn append(&mut self, bytes: &[u8]) -> u64; fn close(self) {} }
        mod inner { pub struct Deep(u8); }
        #[cfg(feature = "fake")]
        pub mod fake;
        #[doc(hidden)]
        pub mod planted { pub const BUGS: u8 = 1; }
        #[cfg(test)]
        mod tests { pub fn helper() {} }
    "#;

    #[test]
    fn the_contract_is_what_others_see() {
        let expected = "
// c

pub use inner::Deep;
pub const LIMIT: u64 = 1 << 20;
#[derive(Clone, Debug, thiserror::Error)]
pub struct Point {
    pub x: u64,
}
impl Point {
    #[must_use]
    pub fn new(x: u64) -> Self {}
}
impl fmt::Display for Point {}
pub trait Log {
    fn append(&mut self, bytes: &[u8]) -> u64;
    fn close(self) {}
}

// c::inner

pub struct Deep(u8);
";
        assert_eq!(render(SOURCE), expected);
    }

    #[test]
    fn what_others_do_not_see_may_change() {
        for (old, new) in [
            ("/// A limit.", "/// The limit."),
            ("secret: u8", "hidden: u16"),
            ("x += 1;", "x += 2;"),
            ("fn hidden(&self) {}", ""),
            ("#[error(\"text\")]", "#[error(\"other text\")]"),
            ("pub fn helper() {}", ""),
        ] {
            let changed = SOURCE.replace(old, new);
            assert_ne!(changed, SOURCE, "{old}");
            compare(&render(SOURCE), &render(&changed)).unwrap_or_else(|diff| panic!("{old}: {diff}"));
        }
    }

    #[test]
    fn a_changed_contract_is_detected() {
        for (old, new) in [
            ("1 << 20", "1 << 21"),
            ("bytes: &[u8]", "bytes: &[u16]"),
            ("-> u64;", "-> Option<u64>;"),
            ("fn close(self) {}", "fn close(self);"),
            ("pub x: u64", "pub y: u64"),
            ("Clone, Debug", "Debug"),
            ("#[must_use]", ""),
            ("impl fmt::Display", "impl fmt::LowerHex"),
            ("pub struct Deep(u8)", "pub struct Deep(u16)"),
            ("pub(crate) struct Private", "pub struct Private"),
            ("pub use inner::Deep;", ""),
            ("fn hidden", "pub fn hidden"),
        ] {
            let changed = SOURCE.replace(old, new);
            assert_ne!(changed, SOURCE, "{old}");
            assert!(compare(&render(SOURCE), &render(&changed)).is_err(), "{old} -> {new} went unnoticed");
        }
    }

    #[test]
    fn a_difference_names_its_module_and_lines() {
        let changed = render(&SOURCE.replace("1 << 20", "1 << 21"));
        let diff = compare(&render(SOURCE), &changed).unwrap_err();
        assert_eq!(diff, "  // c\n- pub const LIMIT: u64 = 1 << 20;\n+ pub const LIMIT: u64 = 1 << 21;\n");
    }

    #[test]
    fn a_missing_source_file_is_named() {
        let error = render_crate("c", Path::new("/none/lib.rs")).unwrap_err().to_string();
        assert!(error.starts_with("/none/lib.rs: "), "{error}");
    }
}
