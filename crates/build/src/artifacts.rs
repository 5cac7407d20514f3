//! What cargo says that it has built: one JSON object a line.
//!
//! The format: <https://doc.rust-lang.org/cargo/reference/external-tools.html#json-messages>.

use std::collections::BTreeSet;
use std::io::{self, BufRead};
use std::path::PathBuf;

use serde_json::Value;

use crate::Program;

/// What a build has made, of which packages, and what the compiler thought.
#[derive(Debug, Default)]
pub(crate) struct Artifacts {
    /// The programs, by name.
    pub(crate) programs: Vec<Program>,
    /// The manifests of the packages that are files of the user's own.
    pub(crate) manifests: BTreeSet<PathBuf>,
    /// Warnings, one line each.
    pub(crate) warnings: Vec<String>,
}

impl Artifacts {
    /// Reads all messages. Prints compiler messages as they come, as cargo would.
    pub(crate) fn read(messages: impl BufRead) -> io::Result<Self> {
        let mut artifacts = Self::default();
        for line in messages.lines() {
            // Other programs that cargo runs may print there too.
            if let Ok(message) = serde_json::from_str(&line?) {
                artifacts.add(&message);
            }
        }
        artifacts.programs.sort();
        Ok(artifacts)
    }

    fn add(&mut self, message: &Value) {
        match message["reason"].as_str() {
            Some("compiler-artifact") => self.add_artifact(message),
            Some("compiler-message") => self.add_message(message),
            _ => {}
        }
    }

    fn add_artifact(&mut self, artifact: &Value) {
        let local = artifact["package_id"].as_str().is_some_and(|id| id.starts_with("path+file:"));
        if local && let Some(manifest) = artifact["manifest_path"].as_str() {
            self.manifests.insert(manifest.into());
        }
        let name = artifact["target"]["name"].as_str();
        if let (Some(name), Some(path)) = (name, artifact["executable"].as_str()) {
            self.programs.push(Program { name: name.to_owned(), path: path.into() });
        }
    }

    fn add_message(&mut self, message: &Value) {
        let diagnostic = &message["message"];
        eprint!("{}", diagnostic["rendered"].as_str().unwrap_or_default());
        // Without a span it is a summary: "2 warnings emitted".
        let (Some("warning"), Some(span)) =
            (diagnostic["level"].as_str(), diagnostic["spans"].get(0))
        else {
            return;
        };
        self.warnings.push(format!(
            "{} at {}:{} of the guest's {}",
            diagnostic["message"].as_str().unwrap_or_default(),
            span["file_name"].as_str().unwrap_or_default(),
            span["line_start"],
            message["target"]["name"].as_str().unwrap_or_default(),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGES: &str = r#"
{"reason":"compiler-artifact","package_id":"registry+https://x#log@0.4.0","manifest_path":"/r/log/Cargo.toml","target":{"name":"log"},"executable":null}
{"reason":"compiler-artifact","package_id":"path+file:///sdk#cellule-guest@0.1.0","manifest_path":"/sdk/Cargo.toml","target":{"name":"cellule_guest"},"executable":null}
something else that was printed
{"reason":"compiler-message","package_id":"path+file:///g#0.1.0","target":{"name":"b"},"message":{"level":"warning","message":"unused variable: `x`","spans":[{"file_name":"src/main.rs","line_start":3}],"rendered":""}}
{"reason":"compiler-message","target":{"name":"b"},"message":{"level":"warning","message":"1 warning emitted","spans":[],"rendered":""}}
{"reason":"compiler-artifact","package_id":"path+file:///g#0.1.0","manifest_path":"/g/Cargo.toml","target":{"name":"b"},"executable":"/o/b"}
{"reason":"compiler-artifact","package_id":"path+file:///g#0.1.0","manifest_path":"/g/Cargo.toml","target":{"name":"a"},"executable":"/o/a"}
{"reason":"build-finished","success":true}
"#;

    #[test]
    fn programs_local_packages_and_warnings_are_found() {
        let artifacts = Artifacts::read(MESSAGES.as_bytes()).unwrap();
        let program =
            |name: &str| Program { name: name.into(), path: PathBuf::from("/o").join(name) };
        assert_eq!(artifacts.programs, [program("a"), program("b")]);
        assert!(
            artifacts
                .manifests
                .iter()
                .eq(["/g/Cargo.toml", "/sdk/Cargo.toml"].map(PathBuf::from).iter())
        );
        assert_eq!(artifacts.warnings, ["unused variable: `x` at src/main.rs:3 of the guest's b"]);
    }
}
