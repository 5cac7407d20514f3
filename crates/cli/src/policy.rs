//! `cellule policy`: whether a policy file makes sense, before anything runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cellule::audit::Printable;
use cellule::policy::{Document, Facts};
use cellule::{Image, Policy, Verdict};

/// What is to be done with a policy file.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Reads a policy file and says all that is wrong with it, a line each, with
    /// line and column. Fails if anything is.
    Check(Check),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The policy file, TOML.
    file: PathBuf,
    /// The guest image that it is for: then every function that it names must be
    /// one that the guest imports.
    #[arg(long)]
    image: Option<PathBuf>,
}

/// Does it; fails if there is something to complain about.
pub(crate) fn run(command: &Command) -> ExitCode {
    let Command::Check(check) = command;
    match check.run() {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(complaints) => {
            complaints.iter().for_each(|complaint| println!("{complaint}"));
            ExitCode::FAILURE
        }
    }
}

impl Check {
    /// What there is to say: one line if all is well, else complaints.
    fn run(&self) -> Result<String, Vec<String>> {
        let file = shown(&self.file);
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| vec![format!("{file}: cannot be read: {error}")])?;
        let document = Document::parse(&text);
        let image = self.image.as_deref().map(load).transpose();
        let (document, image) = match (document, image) {
            (Ok(document), Ok(image)) => (document, image),
            (document, image) => {
                let unreadable = document.err().map(|error| format!("{file}:{error}"));
                return Err(unreadable.into_iter().chain(image.err()).collect());
            }
        };
        let facts = image.iter().fold(Facts::default(), |facts, image| {
            facts.imports(image.imports().map(|import| import.name()))
        });
        let findings = document.policy().verify(&facts);
        if findings.is_empty() {
            return Ok(format!("{file}: {}", summary(document.policy(), image.as_ref())));
        }
        let line = |finding| match document.position(finding) {
            Some(position) => format!("{file}:{position}: {finding}"),
            None => format!("{file}: {finding}"),
        };
        Err(findings.iter().map(line).collect())
    }
}

fn load(path: &Path) -> Result<Image, String> {
    Image::from_file(path).map_err(|error| Printable(&error.to_string()).to_string())
}

/// What a policy without a defect does to an image.
fn summary(policy: &Policy, image: Option<&Image>) -> String {
    let Some(image) = image else { return "no contradictions".to_owned() };
    let allowed = |name: &&str| policy.judge(name) == Verdict::Allow;
    let (allows, denies): (Vec<_>, Vec<_>) =
        image.imports().map(|import| import.name()).partition(allowed);
    let list = |names: Vec<&str>| match names.as_slice() {
        [] => "nothing".to_owned(),
        some => Printable(&some.join(", ")).to_string(),
    };
    format!(
        "fits; of what the guest imports it allows {}; it denies {}",
        list(allows),
        list(denies)
    )
}

/// A path in which nothing controls a terminal.
pub(crate) fn shown(path: &Path) -> String {
    Printable(&path.to_string_lossy()).to_string()
}
