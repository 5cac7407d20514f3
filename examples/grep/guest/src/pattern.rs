//! A pattern as an expression that never matches a line's end, so that many
//! lines can be searched at once.

use cellule_guest::prelude::*;
use memchr::memmem::Finder;
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::hir::literal::{ExtractKind, Extractor};
use regex_syntax::hir::{
    Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look,
    Repetition,
};

/// What the host asks for besides the pattern; it has the same.
#[derive(Clone, Copy, Deserialize, Schema)]
#[serde(crate = "cellule_guest::serde")]
pub(crate) struct Flags {
    ignore_case: bool,
    pub(crate) invert: bool,
    pub(crate) number: bool,
}

/// How deep a pattern may nest. As printed for `regex`, it nests deeper.
const DEEPEST: u32 = 200;

/// What finds the lines that match.
pub(crate) struct Pattern {
    pub(crate) regex: Regex,
    /// A text in every match. To look for it first is several times faster, which
    /// `regex` does by itself, but only with std.
    pub(crate) literal: Option<Finder<'static>>,
}

impl Pattern {
    /// As with grep, every line of the text is a pattern.
    pub(crate) fn new(text: &str, flags: Flags) -> Result<Self, String> {
        let mut parser = ParserBuilder::new();
        // The searched lines need not be UTF-8.
        parser.case_insensitive(flags.ignore_case).multi_line(true).utf8(false);
        let mut parser = parser.nest_limit(DEEPEST).build();
        let mut parse = |line| parser.parse(line).map(within_a_line).map_err(|e| e.to_string());
        let hir = Hir::alternation(text.split('\n').map(&mut parse).collect::<Result<_, _>>()?);
        let mut builder = RegexBuilder::new(&hir.to_string());
        let regex = builder.nest_limit(4 * DEEPEST).build().map_err(|error| error.to_string())?;
        Ok(Self { regex, literal: literal(&hir) })
    }
}

fn literal(hir: &Hir) -> Option<Finder<'static>> {
    let prefixes = Extractor::new().extract(hir);
    let suffixes = Extractor::new().kind(ExtractKind::Suffix).extract(hir);
    let both = [prefixes.longest_common_prefix(), suffixes.longest_common_suffix()];
    let longest = both.into_iter().flatten().max_by_key(|text| text.len())?;
    (longest.len() > 1).then(|| Finder::new(longest).into_owned())
}

/// The same expression for a text of one line.
fn within_a_line(hir: Hir) -> Hir {
    match hir.into_kind() {
        HirKind::Class(Class::Unicode(mut class)) => {
            class.difference(&ClassUnicode::new([ClassUnicodeRange::new('\n', '\n')]));
            Hir::class(Class::Unicode(class))
        }
        HirKind::Class(Class::Bytes(mut class)) => {
            class.difference(&ClassBytes::new([ClassBytesRange::new(b'\n', b'\n')]));
            Hir::class(Class::Bytes(class))
        }
        HirKind::Literal(literal) if literal.0.contains(&b'\n') => Hir::fail(),
        HirKind::Literal(literal) => Hir::literal(literal.0),
        HirKind::Look(Look::Start) => Hir::look(Look::StartLF),
        HirKind::Look(Look::End) => Hir::look(Look::EndLF),
        HirKind::Look(look) => Hir::look(look),
        HirKind::Repetition(Repetition { min, max, greedy, sub }) => {
            let sub = Box::new(within_a_line(*sub));
            Hir::repetition(Repetition { min, max, greedy, sub })
        }
        HirKind::Capture(capture) => within_a_line(*capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.into_iter().map(within_a_line).collect()),
        HirKind::Alternation(parts) => {
            Hir::alternation(parts.into_iter().map(within_a_line).collect())
        }
        HirKind::Empty => Hir::empty(),
    }
}
