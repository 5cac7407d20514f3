//! `cellule inspect`: what a guest image is, and what it wants.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use cellule::abi::ABI_VERSION;
use cellule::audit::Printable;
use cellule::{FunctionInfo, Image, Policy, Protection, Region, SegmentInfo};
use serde::Serialize;

use crate::policy::shown;

/// What is to be shown of which image.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The guest image.
    guest: PathBuf,
    /// Print a policy file instead that allows what the guest imports and no more.
    #[arg(long, conflicts_with = "json")]
    policy: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

/// What an image is.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    sha256: String,
    abi_version: u32,
    sdk_version: String,
    entry: u64,
    exports: Vec<Function>,
    imports: Vec<Function>,
    segments: Vec<Segment>,
    /// Of a sandbox of default sizes.
    memory_map: Vec<Range>,
    /// What a policy has to allow for the guest to get all that it may ask for.
    policy: String,
}

#[derive(Debug, Serialize)]
struct Function {
    name: String,
    signature: String,
}

#[derive(Debug, Serialize)]
struct Segment {
    gva: u64,
    bytes: u64,
    content_bytes: u64,
    protection: String,
}

/// Ranges of one kind that follow each other.
#[derive(Debug, Serialize)]
struct Range {
    name: &'static str,
    gva: u64,
    bytes: u64,
    protection: String,
    count: u64,
}

/// Prints what is asked for; fails if the file is no guest image.
pub(crate) fn run(options: &Options) -> ExitCode {
    match text(options) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cellule: {}", Printable(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn text(options: &Options) -> Result<String, Box<dyn std::error::Error>> {
    let image = Image::from_file(&options.guest)?;
    if options.policy {
        return Ok(skeleton(&image));
    }
    let report = Report::new(shown(&options.guest), &image)?;
    match options.json {
        true => Ok(serde_json::to_string_pretty(&report)? + "\n"),
        false => Ok(report.to_string()),
    }
}

/// The policy that allows every import, and no more.
fn least(image: &Image) -> Policy {
    image.imports().fold(Policy::deny_all(), |policy, import| policy.allow(import.name()))
}

/// A policy file to start from: each function with its signature, and limits to fill in.
fn skeleton(image: &Image) -> String {
    let mut text = format!(
        "# What this guest may ask for, and no more; the keys are in crates/policy/SCHEMA.md.\n\
         # Guest image: sha256 {}\n",
        image.digest()
    );
    if image.imports().len() == 0 {
        text.push_str("# It imports nothing: it needs no permission.\n");
    }
    for import in image.imports() {
        let own = Policy::deny_all().allow(import.name()).to_toml();
        text.push_str(&format!("\n# {}\n{own}", Printable(import.signature())));
        text.push_str("# argument_bytes = \"4KiB\"\n# calls_per_guest_call = 100\n");
        text.push_str("# deadline = \"250ms\"\n");
    }
    text
}

impl Report {
    fn new(file: String, image: &Image) -> Result<Self, cellule::BuildError> {
        Ok(Self {
            file,
            sha256: image.digest().to_string(),
            // No other version is loaded.
            abi_version: ABI_VERSION,
            sdk_version: image.sdk_version(),
            entry: image.entry().0,
            exports: image.exports().map(Function::new).collect(),
            imports: image.imports().map(Function::new).collect(),
            segments: image.segments().map(Segment::new).collect(),
            memory_map: ranges(&image.memory_map()?),
            policy: least(image).to_toml(),
        })
    }
}

impl Function {
    fn new(function: FunctionInfo<'_>) -> Self {
        let text = |text: &str| Printable(text).to_string();
        Self { name: text(function.name()), signature: text(function.signature()) }
    }
}

impl Segment {
    fn new(segment: SegmentInfo<'_>) -> Self {
        Self {
            gva: segment.gva().0,
            bytes: segment.bytes(),
            content_bytes: segment.content_bytes(),
            protection: segment.protection().to_string(),
        }
    }
}

/// Joins regions of one name and length, which task stacks are, to one line.
fn ranges(regions: &[Region]) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for region in regions {
        match ranges.last_mut() {
            Some(last) if last.name == region.name && last.bytes == region.bytes => last.count += 1,
            _ => ranges.push(Range {
                name: region.name,
                gva: region.gva.0,
                bytes: region.bytes,
                protection: protection(region.protection),
                count: 1,
            }),
        }
    }
    ranges
}

fn protection(protection: Option<Protection>) -> String {
    protection.map_or_else(|| "---".to_owned(), |protection| protection.to_string())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.file)?;
        writeln!(f, "  sha256  {}", self.sha256)?;
        writeln!(f, "  note    ABI {}, SDK {}", self.abi_version, self.sdk_version)?;
        writeln!(f, "  entry   {:#x}", self.entry)?;
        list(f, "exports", &self.exports)?;
        list(f, "imports", &self.imports)?;
        writeln!(f, "\nsegments")?;
        for Segment { gva, bytes, content_bytes, protection } in &self.segments {
            writeln!(f, "  {gva:#012x}  {protection}  {bytes} bytes, {content_bytes} in the file")?;
        }
        writeln!(f, "\nmemory map of a sandbox of default sizes")?;
        for Range { name, gva, bytes, protection, count } in &self.memory_map {
            let times = if *count > 1 { format!(", {count} times") } else { String::new() };
            writeln!(f, "  {gva:#012x}  {protection}  {name}: {bytes} bytes{times}")?;
        }
        match self.policy.is_empty() {
            true => writeln!(f, "\nno policy needs to allow anything"),
            false => write!(f, "\nwhat a policy has to allow\n\n{}", self.policy),
        }
    }
}

fn list(f: &mut fmt::Formatter<'_>, what: &str, functions: &[Function]) -> fmt::Result {
    writeln!(f, "\n{what}: {}", functions.len())?;
    functions
        .iter()
        .try_for_each(|Function { name, signature }| writeln!(f, "  {name}: {signature}"))
}
