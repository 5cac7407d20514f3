//! What a run leaves behind: items, and the text `x@0 r1=ok@3 end@3`.
//!
//! The model writes a [`Trace`], and so does whoever runs a script for real.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// The items of a run, in order; its text is one line.
///
/// ```
/// use cellule_litmus::{Answer, Item, Trace};
/// let trace = Trace(vec![
///     Item::Mark { label: "x".into(), tick: 0 },
///     Item::Answer { label: "r1".into(), answer: Answer::Ok, tick: 3 },
///     Item::End { tick: 3 },
/// ]);
/// assert_eq!(trace.to_string(), "x@0 r1=ok@3 end@3");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace(pub Vec<Item>);

/// One thing that was seen, and the tick at which it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// `mark L`: `L@TICK`.
    Mark {
        /// The label.
        label: String,
        /// When it was passed.
        tick: u64,
    },
    /// An operation that ends in `as L`: `L=ANSWER@TICK`.
    Answer {
        /// The label.
        label: String,
        /// What the operation answered.
        answer: Answer,
        /// When it completed, or when its task next ran if it had to wait.
        tick: u64,
    },
    /// All tasks have ended: `end@TICK`.
    End {
        /// When the last one did.
        tick: u64,
    },
    /// Nobody is ready and no timer is armed: `deadlock@TICK`.
    Deadlock {
        /// Since when.
        tick: u64,
    },
}

/// What an operation answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// `ok`: done.
    Ok,
    /// `busy`: it would have to wait, and its timeout is 0.
    Busy,
    /// `timeout`: it waited its timeout in vain.
    Timeout,
    /// `ownerdead`: the mutex is the caller's, and its former owner ended.
    OwnerDead,
    /// `recursive`: the mutex is the caller's already.
    Recursive,
    /// `full`: the semaphore is at its limit.
    Full,
    /// `notowner`: the mutex is not the caller's.
    NotOwner,
    /// `killed`: the joined task was killed.
    Killed,
    /// `self`: a task cannot join itself.
    SelfJoin,
    /// What came out of a queue, or the flags that matched.
    Value(u64),
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{item}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mark { label, tick } => write!(f, "{label}@{tick}"),
            Self::Answer { label, answer, tick } => write!(f, "{label}={answer}@{tick}"),
            Self::End { tick } => write!(f, "end@{tick}"),
            Self::Deadlock { tick } => write!(f, "deadlock@{tick}"),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self {
            Self::Ok => "ok",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::OwnerDead => "ownerdead",
            Self::Recursive => "recursive",
            Self::Full => "full",
            Self::NotOwner => "notowner",
            Self::Killed => "killed",
            Self::SelfJoin => "self",
            Self::Value(value) => return write!(f, "{value}"),
        };
        f.write_str(word)
    }
}
