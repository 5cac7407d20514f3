//! Text to script, and everything that can be wrong with a text.
//!
//! A line is one statement: words between blanks. A `#` starts a comment
//! wherever it stands, also inside a word; blank lines count and mean nothing;
//! tabs are blanks, and lines may end in CR LF. What the grammar leaves open:
//!
//! * A name or a label is any word, a keyword too: no keyword stands where a
//!   name does.
//! * `slice 0` is no slice. A second `slice` is an error.
//! * `slice` and the objects stand in any order, before the first task.
//! * `expect` is ignored everywhere outside a task, whatever follows it.
//! * A number is digits only, at most `u64::MAX`; leading zeros are allowed.
//! * A text without tasks is a script without tasks.
//! * A missing `end` is reported where another statement shows that it is
//!   missing; if the text just stops, at the line of the `task` statement.
//!
//! The error is that of the first line that has one. Names are collected before
//! the statements are read, because operations may name tasks that come later.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::iter::Peekable;
use core::num::NonZeroU64;
use core::ops::RangeInclusive;
use core::str::SplitWhitespace;

use crate::script::{Action, Kind, Mode, Object, Operation, Script, TaskScript};

/// The priorities of tasks.
const PRIORITIES: RangeInclusive<u64> = 0..=31;
/// What BITS may be: at least one of the 32 flags.
const BITS: RangeInclusive<u64> = 1..=0xffff_ffff;

/// The first error of a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the words and numbers that the message shows")]
pub enum Reason {
    /// No statement begins with this word.
    #[error("unknown statement `{word}`")]
    UnknownStatement { word: String },
    /// No operation begins with this word.
    #[error("unknown operation `{word}`")]
    UnknownOperation { word: String },
    /// An operation that belongs to no task.
    #[error("`{word}` is an operation, and stands outside a task")]
    OutsideTask { word: String },
    /// A statement that is no operation, before the task's `end`.
    #[error("`{word}` cannot stand inside task `{task}`: is its `end` missing?")]
    InsideTask { word: String, task: String },
    /// An `end` that belongs to no task.
    #[error("`end` without a task")]
    StrayEnd,
    /// The text ends inside a task.
    #[error("task `{task}` has no `end`")]
    MissingEnd { task: String },
    /// An object or an option after the first task.
    #[error("`{word}` must stand before the first task")]
    AfterTask { word: String },
    /// A second `slice`.
    #[error("`slice` stands on line {first} already")]
    SecondSlice { first: usize },
    /// The line ends too early.
    #[error("`{statement}` lacks its {argument}")]
    MissingArgument { statement: String, argument: &'static str },
    /// The line goes on where it should end.
    #[error("`{statement}` ends before `{word}`")]
    ExtraArgument { statement: String, word: String },
    /// A name that something else has.
    #[error("the name `{name}` is taken by line {first}")]
    DuplicateName { name: String, first: usize },
    /// A name that nothing has.
    #[error("nothing is named `{name}`")]
    Undefined { name: String },
    /// A name of the wrong kind of thing.
    #[error("`{name}` is of kind `{found}`, not `{wanted}`")]
    WrongKind { name: String, found: String, wanted: &'static str },
    /// Not a number, or one outside its range.
    #[error("{argument} is `{word}`, which is not a number from {least} to {most}")]
    BadNumber { argument: &'static str, word: String, least: u64, most: u64 },
    /// A semaphore that would begin above its limit.
    #[error("INITIAL is {initial}, which is above the LIMIT {limit}")]
    InitialAboveLimit { initial: u64, limit: u64 },
    /// Neither `any` nor `all`.
    #[error("`{word}` is neither `any` nor `all`")]
    BadMode { word: String },
    /// `as` on an operation that answers nothing.
    #[error("`{operation}` has no result for `as`")]
    NoResult { operation: &'static str },
    /// `as` at the end of the line.
    #[error("`as` lacks its label")]
    MissingLabel,
}

impl Script {
    /// Reads a script. What the grammar leaves open is decided [here](self).
    ///
    /// ```
    /// use cellule_litmus::Script;
    /// let script = Script::parse("task A 3 at 5\n  mark a\nend\nexpect a@5 end@5")?;
    /// assert_eq!((script.tasks[0].priority, script.tasks[0].at), (3, 5));
    ///
    /// let error = Script::parse("task A 3\n  wrok 5\nend").unwrap_err();
    /// assert_eq!(error.to_string(), "line 2: unknown operation `wrok`");
    /// # Ok::<(), cellule_litmus::ParseError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ParseError`] for the first line that is not in the language.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser { names: collect_names(text), ..Parser::default() };
        for (line, words) in lines(text) {
            parser.statement(line, words).map_err(|reason| ParseError { line, reason })?;
        }
        match parser.open {
            None => Ok(parser.script),
            Some(Open { line, task }) => {
                Err(ParseError { line, reason: Reason::MissingEnd { task: task.name } })
            }
        }
    }
}

/// A name and what has it.
struct Name<'t> {
    word: &'t str,
    line: usize,
    /// The word of the statement that defines it.
    keyword: &'t str,
    /// Its place among the objects or among the tasks.
    index: usize,
}

/// Finds all definitions. What else may be wrong with them is found later.
fn collect_names(text: &str) -> Vec<Name<'_>> {
    let (mut objects, mut tasks) = (0.., 0..);
    let mut names = Vec::new();
    for (line, mut words) in lines(text) {
        let indices = match words.keyword {
            "sem" | "mutex" | "queue" | "flags" => &mut objects,
            "task" => &mut tasks,
            _ => continue,
        };
        if let (Some(word), Some(index)) = (words.rest.next(), indices.next()) {
            names.push(Name { word, line, keyword: words.keyword, index });
        }
    }
    names
}

/// What was read so far.
#[derive(Default)]
struct Parser<'t> {
    names: Vec<Name<'t>>,
    script: Script,
    slice_line: Option<usize>,
    open: Option<Open>,
}

/// The task whose `end` has not come yet.
struct Open {
    line: usize,
    task: TaskScript,
}

impl Parser<'_> {
    fn statement(&mut self, line: usize, words: Words<'_>) -> Result<(), Reason> {
        match self.open.take() {
            None => self.outside(line, words),
            Some(open) => self.inside(line, words, open),
        }
    }

    fn outside(&mut self, line: usize, mut words: Words<'_>) -> Result<(), Reason> {
        let word = words.keyword;
        match word {
            "expect" => return Ok(()),
            "slice" | "sem" | "mutex" | "queue" | "flags" if !self.script.tasks.is_empty() => {
                return Err(Reason::AfterTask { word: word.into() });
            }
            "slice" => self.slice(line, &mut words)?,
            "sem" | "mutex" | "queue" | "flags" => self.object(line, &mut words)?,
            "task" => self.task(line, &mut words)?,
            "end" => return Err(Reason::StrayEnd),
            _ if OPERATIONS.contains(&word) => {
                return Err(Reason::OutsideTask { word: word.into() });
            }
            _ => return Err(Reason::UnknownStatement { word: word.into() }),
        }
        words.finish()
    }

    fn slice(&mut self, line: usize, words: &mut Words<'_>) -> Result<(), Reason> {
        if let Some(first) = self.slice_line.replace(line) {
            return Err(Reason::SecondSlice { first });
        }
        self.script.slice = NonZeroU64::new(words.number("N", 0..=u64::MAX)?);
        Ok(())
    }

    fn object(&mut self, line: usize, words: &mut Words<'_>) -> Result<(), Reason> {
        let name = self.new_name(line, words)?;
        let kind = match words.keyword {
            "sem" => {
                let initial = words.number("INITIAL", 0..=u64::MAX)?;
                let limit = words.number("LIMIT", 1..=u64::MAX)?;
                if initial > limit {
                    return Err(Reason::InitialAboveLimit { initial, limit });
                }
                Kind::Semaphore { initial, limit }
            }
            "queue" => Kind::Queue { capacity: words.number("CAPACITY", 1..=u64::MAX)? },
            "mutex" => Kind::Mutex,
            _ => Kind::Flags,
        };
        self.script.objects.push(Object { name, kind });
        Ok(())
    }

    fn task(&mut self, line: usize, words: &mut Words<'_>) -> Result<(), Reason> {
        let name = self.new_name(line, words)?;
        let priority = words.priority("PRIORITY")?;
        let at = match words.rest.next_if_eq(&"at") {
            Some(_) => words.number("T", 0..=u64::MAX)?,
            None => 0,
        };
        let task = TaskScript { name, priority, at, operations: Vec::new() };
        self.open = Some(Open { line, task });
        Ok(())
    }

    fn inside(&mut self, line: usize, words: Words<'_>, mut open: Open) -> Result<(), Reason> {
        match words.keyword {
            "end" => {
                self.script.tasks.push(open.task);
                words.finish()
            }
            "slice" | "sem" | "mutex" | "queue" | "flags" | "task" | "expect" => {
                Err(Reason::InsideTask { word: words.keyword.into(), task: open.task.name })
            }
            _ => {
                open.task.operations.push(self.operation(line, words)?);
                self.open = Some(open);
                Ok(())
            }
        }
    }

    fn operation(&self, line: usize, mut words: Words<'_>) -> Result<Operation, Reason> {
        let action = self.action(&mut words)?;
        let label = words.label(&action)?;
        words.finish()?;
        Ok(Operation { line, action, label })
    }

    /// Reads an operation up to its `as`. Fields are read in their order.
    fn action(&self, words: &mut Words<'_>) -> Result<Action, Reason> {
        let action = match words.keyword {
            "mark" => Action::Mark { label: words.next("L")?.into() },
            "work" => Action::Work { ticks: words.number("N", 1..=u64::MAX)? },
            "sleep" => Action::Sleep { ticks: words.number("N", 1..=u64::MAX)? },
            "yield" => Action::Yield,
            "take" => {
                Action::Take { semaphore: self.named("sem", words)?, timeout: words.timeout()? }
            }
            "give" => Action::Give { semaphore: self.named("sem", words)? },
            "lock" => {
                Action::Lock { mutex: self.named("mutex", words)?, timeout: words.timeout()? }
            }
            "unlock" => Action::Unlock { mutex: self.named("mutex", words)? },
            "put" => Action::Put {
                queue: self.named("queue", words)?,
                value: words.number("V", 0..=u64::MAX)?,
                timeout: words.timeout()?,
            },
            "get" => Action::Get { queue: self.named("queue", words)?, timeout: words.timeout()? },
            "set" => Action::Set { flags: self.named("flags", words)?, bits: words.bits()? },
            "clear" => Action::Clear { flags: self.named("flags", words)?, bits: words.bits()? },
            "wait" => Action::Wait {
                flags: self.named("flags", words)?,
                mode: words.mode()?,
                bits: words.bits()?,
                timeout: words.timeout()?,
            },
            "prio" => {
                Action::Prio { task: self.named("task", words)?, priority: words.priority("P")? }
            }
            "suspend" => Action::Suspend { task: self.named("task", words)? },
            "resume" => Action::Resume { task: self.named("task", words)? },
            "kill" => Action::Kill { task: self.named("task", words)? },
            "join" => Action::Join { task: self.named("task", words)?, timeout: words.timeout()? },
            word => return Err(Reason::UnknownOperation { word: word.into() }),
        };
        Ok(action)
    }

    /// Reads the name of something that exists, and returns its index.
    fn named(&self, wanted: &'static str, words: &mut Words<'_>) -> Result<usize, Reason> {
        let word = words.next(wanted)?;
        match self.names.iter().find(|name| name.word == word) {
            None => Err(Reason::Undefined { name: word.into() }),
            Some(name) if name.keyword == wanted => Ok(name.index),
            Some(name) => {
                Err(Reason::WrongKind { name: word.into(), found: name.keyword.into(), wanted })
            }
        }
    }

    /// Reads the name that this line defines.
    fn new_name(&self, line: usize, words: &mut Words<'_>) -> Result<String, Reason> {
        let name = words.next("NAME")?.to_string();
        match self.names.iter().find(|known| known.word == name) {
            Some(known) if known.line < line => {
                Err(Reason::DuplicateName { name, first: known.line })
            }
            _ => Ok(name),
        }
    }
}

/// The words that begin operations, to tell a misplaced one from an unknown one.
const OPERATIONS: [&str; 18] = [
    "mark", "work", "sleep", "yield", "take", "give", "lock", "unlock", "put", "get", "set",
    "clear", "wait", "prio", "suspend", "resume", "kill", "join",
];

/// A statement: its first word and those that were not read yet.
struct Words<'t> {
    keyword: &'t str,
    rest: Peekable<SplitWhitespace<'t>>,
}

/// The lines that hold a statement, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, Words<'_>)> {
    text.lines().zip(1..).filter_map(|(line, number)| {
        let statement = line.split('#').next()?;
        let mut rest = statement.split_whitespace().peekable();
        Some((number, Words { keyword: rest.next()?, rest }))
    })
}

impl<'t> Words<'t> {
    fn next(&mut self, argument: &'static str) -> Result<&'t str, Reason> {
        let statement = self.keyword;
        self.rest
            .next()
            .ok_or_else(|| Reason::MissingArgument { statement: statement.into(), argument })
    }

    fn number(
        &mut self,
        argument: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<u64, Reason> {
        let word = self.next(argument)?;
        let (least, most) = range.into_inner();
        // Rust's own parser would take a plus sign too.
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        match word.parse() {
            Ok(number) if digits && least <= number && number <= most => Ok(number),
            _ => Err(Reason::BadNumber { argument, word: word.into(), least, most }),
        }
    }

    /// Reads a number into a type that holds all of its range.
    fn narrow<N: TryFrom<u64>>(
        &mut self,
        argument: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<N, Reason> {
        let (least, most) = (*range.start(), *range.end());
        let number = self.number(argument, range)?;
        N::try_from(number).map_err(|_| Reason::BadNumber {
            argument,
            word: number.to_string(),
            least,
            most,
        })
    }

    fn priority(&mut self, argument: &'static str) -> Result<u8, Reason> {
        self.narrow(argument, PRIORITIES)
    }

    fn bits(&mut self) -> Result<u32, Reason> {
        self.narrow("BITS", BITS)
    }

    fn mode(&mut self) -> Result<Mode, Reason> {
        match self.next("any|all")? {
            "any" => Ok(Mode::Any),
            "all" => Ok(Mode::All),
            word => Err(Reason::BadMode { word: word.into() }),
        }
    }

    /// Reads the timeout, if there is one before the `as` or the line's end.
    fn timeout(&mut self) -> Result<Option<u64>, Reason> {
        match self.rest.peek() {
            None | Some(&"as") => Ok(None),
            Some(_) => self.number("T", 0..=u64::MAX).map(Some),
        }
    }

    /// Reads `as L`, if it is there.
    fn label(&mut self, action: &Action) -> Result<Option<String>, Reason> {
        if self.rest.next_if_eq(&"as").is_none() {
            return Ok(None);
        }
        if !action.has_result() {
            return Err(Reason::NoResult { operation: action.keyword() });
        }
        let label = self.rest.next().ok_or(Reason::MissingLabel)?;
        Ok(Some(label.into()))
    }

    fn finish(mut self) -> Result<(), Reason> {
        match self.rest.next() {
            None => Ok(()),
            Some(word) => {
                Err(Reason::ExtraArgument { statement: self.keyword.into(), word: word.into() })
            }
        }
    }
}
