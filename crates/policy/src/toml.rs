//! [`Document`]: a policy file, read key by key, with the place of each.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

use crate::finding::{Finding, Place};
use crate::policy::{Function, Policy};

mod value;

use value::{Keys, read_budget, read_rule};

/// A place in a text, both counted from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// A text that is not a policy file. Displays as `line:column: defect`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {defect}")]
pub struct ParseError {
    /// Where.
    pub position: Position,
    /// What.
    pub defect: Defect,
}

/// What is wrong with a policy file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Defect {
    /// It is not TOML.
    #[error("not TOML: {message}")]
    Syntax {
        /// The parser's own words.
        message: String,
    },
    /// There is no such key.
    #[error(
        "unknown key `{}` in {table}; the keys here are {}{}",
        .key.escape_debug(), .known.join(", "), meant(*.nearest)
    )]
    UnknownKey {
        /// Where it is, in words.
        table: String,
        /// The key.
        key: String,
        /// The known key that is most like it.
        nearest: Option<&'static str>,
        /// The keys that are known there.
        known: &'static [&'static str],
    },
    /// A key is missing that must be there.
    #[error("{table} lacks the key `{key}`, which is {expected}")]
    MissingKey {
        /// Where, in words.
        table: String,
        /// The key.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A value is not what its key needs.
    #[error("`{key}` is {value}: must be {expected}")]
    Value {
        /// The key, with those above it.
        key: String,
        /// The value, or its kind.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// A function cannot have this name.
    #[error(
        "no host function can be named \"{}\": names are 1 to {} ASCII letters, digits and `_ : . -`",
        .name.escape_debug(), cellule_abi::symbol::NAME_BYTES
    )]
    FunctionName {
        /// The name.
        name: String,
    },
}

pub(crate) fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A policy file: the policy, and where each of its keys is.
///
/// ```
/// use cellule_policy::{Document, Facts, Position};
/// let file = Document::parse("[function.day]\nallow = true\ndeadline = \"0s\"\n")?;
/// let findings = file.policy().verify(&Facts::default());
/// assert_eq!(findings.len(), 1);
/// assert_eq!(file.position(&findings[0]), Some(Position { line: 3, column: 1 }));
/// # Ok::<(), cellule_policy::ParseError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Document {
    policy: Policy,
    places: Places,
}

/// Where the keys are; that of a table itself is the empty key.
type Places = BTreeMap<(Place, String), Position>;

const TOP: [&str; 2] = ["function", "sandbox"];
const A_TABLE: &str = "a table";

impl Document {
    /// Reads a policy file.
    ///
    /// # Errors
    ///
    /// [`ParseError`]: the first defect.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().to_owned();
            ParseError { position: position(text, at), defect: Defect::Syntax { message } }
        })?;
        let mut reader = Reader { text, places: Places::new(), policy: Policy::default() };
        reader.file(table.get_ref())?;
        Ok(Self { policy: reader.policy, places: reader.places })
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The policy alone.
    pub fn into_policy(self) -> Policy {
        self.policy
    }

    /// Where a finding comes from: the key, or else its table.
    pub fn position(&self, finding: &Finding) -> Option<Position> {
        let (place, rule) = finding.place();
        let at = |rule: &str| self.places.get(&(place.clone(), rule.to_owned())).copied();
        at(rule).or_else(|| at(""))
    }
}

/// Reads one file.
struct Reader<'a> {
    text: &'a str,
    places: Places,
    policy: Policy,
}

impl Reader<'_> {
    fn file(&mut self, table: &DeTable<'_>) -> Result<(), ParseError> {
        for (key, value) in table {
            let (at, name) = (key.span().start, key.get_ref().as_ref());
            match (name, value.get_ref()) {
                ("sandbox", DeValue::Table(table)) => self.sandbox(at, table)?,
                ("function", DeValue::Table(table)) => self.functions(table)?,
                ("sandbox" | "function", other) => {
                    let value = value::shown(other);
                    let key = name.to_owned();
                    return Err(self.error(at, Defect::Value { key, value, expected: A_TABLE }));
                }
                _ => return Err(self.unknown(at, "the file", name, &TOP)),
            }
        }
        Ok(())
    }

    fn sandbox(&mut self, at: usize, table: &DeTable<'_>) -> Result<(), ParseError> {
        self.place(&Place::Sandbox, "", at);
        for (key, value) in table {
            let (at, name) = (key.span().start, key.get_ref().as_ref());
            self.place(&Place::Sandbox, name, at);
            let keys = Keys { table: "sandbox", key: name, value };
            let Policy { all, budgets, log, .. } = &mut self.policy;
            let read = read_rule(&keys, all).and_then(|known| match known {
                true => Ok(true),
                false => read_budget(&keys, budgets, log),
            });
            match read {
                Ok(true) => {}
                Ok(false) => return Err(self.unknown(at, "`sandbox`", name, &value::SANDBOX_KEYS)),
                Err((at, defect)) => return Err(self.error(at, defect)),
            }
        }
        Ok(())
    }

    fn functions(&mut self, table: &DeTable<'_>) -> Result<(), ParseError> {
        for (name, value) in table {
            let at = name.span().start;
            let name = name.get_ref().as_ref();
            let DeValue::Table(table) = value.get_ref() else {
                let value = value::shown(value.get_ref());
                let key = format!("function.{}", name.escape_debug());
                return Err(self.error(at, Defect::Value { key, value, expected: A_TABLE }));
            };
            if !is_name(name) {
                return Err(self.error(at, Defect::FunctionName { name: name.to_owned() }));
            }
            let function = self.function(name, at, table)?;
            self.policy.functions.insert(name.to_owned(), function);
        }
        Ok(())
    }

    fn function(
        &mut self,
        name: &str,
        at: usize,
        table: &DeTable<'_>,
    ) -> Result<Function, ParseError> {
        let place = Place::Function(name.to_owned());
        let path = format!("function.{name}");
        self.place(&place, "", at);
        let (mut allow, mut function) = (None, Function::default());
        for (key, value) in table {
            let (at, key) = (key.span().start, key.get_ref().as_ref());
            self.place(&place, key, at);
            let keys = Keys { table: &path, key, value };
            let read = match key {
                "allow" => keys.boolean().map(|said| allow = Some(said)).map(|()| true),
                _ => read_rule(&keys, &mut function.rules),
            };
            match read {
                Ok(true) => {}
                Ok(false) => {
                    let table = format!("`{path}`");
                    return Err(self.unknown(at, &table, key, &value::FUNCTION_KEYS));
                }
                Err((at, defect)) => return Err(self.error(at, defect)),
            }
        }
        let Some(allow) = allow else {
            let (key, expected) = ("allow", "whether it may be called at all, true or false");
            let table = format!("`{path}`");
            return Err(self.error(at, Defect::MissingKey { table, key, expected }));
        };
        Ok(Function { allow, ..function })
    }

    fn place(&mut self, place: &Place, key: &str, at: usize) {
        self.places.insert((place.clone(), key.to_owned()), position(self.text, at));
    }

    fn unknown(
        &self,
        at: usize,
        table: &str,
        key: &str,
        known: &'static [&'static str],
    ) -> ParseError {
        self.error(at, value::unknown(table, key, known))
    }

    fn error(&self, at: usize, defect: Defect) -> ParseError {
        ParseError { position: position(self.text, at), defect }
    }
}

/// The line and column of a byte.
fn position(text: &str, at: usize) -> Position {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    Position { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
}

/// What the loader of images takes as a function's name.
fn is_name(name: &str) -> bool {
    let fits = (1..=cellule_abi::symbol::NAME_BYTES).contains(&name.len());
    fits && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '-'))
}
