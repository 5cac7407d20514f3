//! The script language as values.
//!
//! Names are resolved: an operation holds the index of its object in
//! [`Script::objects`] or of its task in [`Script::tasks`], so that whoever runs
//! a script keeps its objects and tasks in two arrays and looks nothing up.
//! [`Script::parse`] makes these values from a text; `Display` writes one back.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU64;

/// A whole script.
///
/// Its `Display` is a text that parses to the same script, if its indices and
/// numbers are in their ranges and its names are words:
///
/// ```
/// use cellule_litmus::Script;
/// let script = Script::parse("  sem s 0 1 # a comment\n\ntask A 3 at 5\ntake s 9 as r\nend")?;
/// assert_eq!(script.to_string(), "sem s 0 1\ntask A 3 at 5\n  take s 9 as r\nend\n");
/// # Ok::<(), cellule_litmus::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    /// The time slice in ticks, if there is one.
    pub slice: Option<NonZeroU64>,
    /// What the tasks share, in file order.
    pub objects: Vec<Object>,
    /// The tasks, in file order.
    pub tasks: Vec<TaskScript>,
}

/// Something that tasks share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name, unlike that of any other object or task.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What an object is, and how it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `sem NAME INITIAL LIMIT`.
    Semaphore {
        /// The count at the start, at most the limit.
        initial: u64,
        /// The highest count, at least 1.
        limit: u64,
    },
    /// `mutex NAME`.
    Mutex,
    /// `queue NAME CAPACITY`.
    Queue {
        /// How many items it holds, at least 1.
        capacity: u64,
    },
    /// `flags NAME`: 32 flags, none set at the start.
    Flags,
}

/// A task and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskScript {
    /// Its name, unlike that of any other object or task.
    pub name: String,
    /// Its base priority, 0 to 31; a larger number is more urgent.
    pub priority: u8,
    /// The tick at which it becomes ready; 0 is the start.
    pub at: u64,
    /// What it does, in order.
    pub operations: Vec<Operation>,
}

/// One operation of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The line of the script's text it stands on, counted from 1.
    pub line: usize,
    /// What it does.
    pub action: Action,
    /// The label of `as L`: only where [`Action::has_result`].
    pub label: Option<String>,
}

/// What an operation does, and to what.
///
/// A `timeout` is in ticks: `None` waits for ever, `Some(0)` does not wait.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those that each variant's grammar names")]
pub enum Action {
    /// `mark L`.
    Mark { label: String },
    /// `work N`, N at least 1.
    Work { ticks: u64 },
    /// `sleep N`, N at least 1.
    Sleep { ticks: u64 },
    /// `yield`.
    Yield,
    /// `take S [T]`.
    Take { semaphore: usize, timeout: Option<u64> },
    /// `give S`.
    Give { semaphore: usize },
    /// `lock M [T]`.
    Lock { mutex: usize, timeout: Option<u64> },
    /// `unlock M`.
    Unlock { mutex: usize },
    /// `put Q V [T]`.
    Put { queue: usize, value: u64, timeout: Option<u64> },
    /// `get Q [T]`.
    Get { queue: usize, timeout: Option<u64> },
    /// `set F BITS`.
    Set { flags: usize, bits: u32 },
    /// `clear F BITS`.
    Clear { flags: usize, bits: u32 },
    /// `wait F any|all BITS [T]`.
    Wait { flags: usize, mode: Mode, bits: u32, timeout: Option<u64> },
    /// `prio TASK P`.
    Prio { task: usize, priority: u8 },
    /// `suspend TASK`.
    Suspend { task: usize },
    /// `resume TASK`.
    Resume { task: usize },
    /// `kill TASK`.
    Kill { task: usize },
    /// `join TASK [T]`.
    Join { task: usize, timeout: Option<u64> },
}

/// Which of its flags a task waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One of them is enough.
    Any,
    /// All of them, at once.
    All,
}

impl Action {
    /// The word that begins the operation in a script.
    ///
    /// ```
    /// use cellule_litmus::Action;
    /// assert_eq!(Action::Give { semaphore: 0 }.keyword(), "give");
    /// ```
    #[must_use]
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Mark { .. } => "mark",
            Self::Work { .. } => "work",
            Self::Sleep { .. } => "sleep",
            Self::Yield => "yield",
            Self::Take { .. } => "take",
            Self::Give { .. } => "give",
            Self::Lock { .. } => "lock",
            Self::Unlock { .. } => "unlock",
            Self::Put { .. } => "put",
            Self::Get { .. } => "get",
            Self::Set { .. } => "set",
            Self::Clear { .. } => "clear",
            Self::Wait { .. } => "wait",
            Self::Prio { .. } => "prio",
            Self::Suspend { .. } => "suspend",
            Self::Resume { .. } => "resume",
            Self::Kill { .. } => "kill",
            Self::Join { .. } => "join",
        }
    }

    /// Whether the operation answers, so that it may end in `as L`.
    ///
    /// ```
    /// use cellule_litmus::Action;
    /// assert!(Action::Give { semaphore: 0 }.has_result());
    /// assert!(!Action::Set { flags: 0, bits: 1 }.has_result());
    /// ```
    #[must_use]
    pub fn has_result(&self) -> bool {
        match self {
            Self::Take { .. }
            | Self::Give { .. }
            | Self::Lock { .. }
            | Self::Unlock { .. }
            | Self::Put { .. }
            | Self::Get { .. }
            | Self::Wait { .. }
            | Self::Join { .. } => true,
            Self::Mark { .. }
            | Self::Work { .. }
            | Self::Sleep { .. }
            | Self::Yield
            | Self::Set { .. }
            | Self::Clear { .. }
            | Self::Prio { .. }
            | Self::Suspend { .. }
            | Self::Resume { .. }
            | Self::Kill { .. } => false,
        }
    }
}

impl Script {
    /// Sets every operation's line to the one on which `Display` writes it, so
    /// that a script made by hand is equal to its own text, parsed.
    ///
    /// ```
    /// use cellule_litmus::Script;
    /// let mut script = Script::parse("task A 1\n\n\nyield # line 4\nend")?;
    /// script.renumber();
    /// assert_eq!(script.tasks[0].operations[0].line, 2);
    /// assert_eq!(Script::parse(&script.to_string())?, script);
    /// # Ok::<(), cellule_litmus::ParseError>(())
    /// ```
    pub fn renumber(&mut self) {
        let mut line = usize::from(self.slice.is_some()) + self.objects.len();
        for task in &mut self.tasks {
            line += 1;
            for operation in &mut task.operations {
                line += 1;
                operation.line = line;
            }
            line += 1;
        }
    }

    fn object(&self, index: usize) -> &str {
        self.objects.get(index).map_or("?", |object| &object.name)
    }

    fn task(&self, index: usize) -> &str {
        self.tasks.get(index).map_or("?", |task| &task.name)
    }

    fn write_operation(&self, f: &mut fmt::Formatter<'_>, operation: &Operation) -> fmt::Result {
        write!(f, "  {}", operation.action.keyword())?;
        self.write_arguments(f, &operation.action)?;
        match &operation.label {
            Some(label) => writeln!(f, " as {label}"),
            None => writeln!(f),
        }
    }

    fn write_arguments(&self, f: &mut fmt::Formatter<'_>, action: &Action) -> fmt::Result {
        match action {
            Action::Mark { label } => write!(f, " {label}"),
            Action::Work { ticks } | Action::Sleep { ticks } => write!(f, " {ticks}"),
            Action::Yield => Ok(()),
            Action::Give { semaphore: object } | Action::Unlock { mutex: object } => {
                write!(f, " {}", self.object(*object))
            }
            Action::Take { semaphore: object, timeout }
            | Action::Lock { mutex: object, timeout }
            | Action::Get { queue: object, timeout } => {
                write!(f, " {}{}", self.object(*object), Timeout(*timeout))
            }
            Action::Put { queue, value, timeout } => {
                write!(f, " {} {value}{}", self.object(*queue), Timeout(*timeout))
            }
            Action::Set { flags, bits } | Action::Clear { flags, bits } => {
                write!(f, " {} {bits}", self.object(*flags))
            }
            Action::Wait { flags, mode, bits, timeout } => {
                write!(f, " {} {mode} {bits}{}", self.object(*flags), Timeout(*timeout))
            }
            Action::Prio { task, priority } => write!(f, " {} {priority}", self.task(*task)),
            Action::Suspend { task } | Action::Resume { task } | Action::Kill { task } => {
                write!(f, " {}", self.task(*task))
            }
            Action::Join { task, timeout } => {
                write!(f, " {}{}", self.task(*task), Timeout(*timeout))
            }
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(slice) = self.slice {
            writeln!(f, "slice {slice}")?;
        }
        for object in &self.objects {
            writeln!(f, "{object}")?;
        }
        for task in &self.tasks {
            write!(f, "task {} {}", task.name, task.priority)?;
            match task.at {
                0 => writeln!(f)?,
                at => writeln!(f, " at {at}")?,
            }
            for operation in &task.operations {
                self.write_operation(f, operation)?;
            }
            writeln!(f, "end")?;
        }
        Ok(())
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind } = self;
        match kind {
            Kind::Semaphore { initial, limit } => write!(f, "sem {name} {initial} {limit}"),
            Kind::Mutex => write!(f, "mutex {name}"),
            Kind::Queue { capacity } => write!(f, "queue {name} {capacity}"),
            Kind::Flags => write!(f, "flags {name}"),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::All => "all",
        })
    }
}

/// Writes an optional last argument with the space before it.
struct Timeout(Option<u64>);

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ticks) => write!(f, " {ticks}"),
            None => Ok(()),
        }
    }
}
