//! A pattern as an expression that never matches a line's end, so that many
//! lines can be searched at once.

use cellule_guest::prelude::*;
use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
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

/// Parsing limits the depth; printing an expression adds groups.
const DEEPEST: u32 = 200;

/// As with grep, every line of the pattern is a pattern.
pub(crate) fn compile(pattern: &str, flags: Flags) -> Result<Regex, String> {
    let mut parser = ParserBuilder::new();
    // Lines need not be UTF-8.
    parser.case_insensitive(flags.ignore_case).multi_line(true).utf8(false).nest_limit(DEEPEST);
    let parse = |line| parser.build().parse(line).map(within_a_line).map_err(|e| e.to_string());
    let hir = Hir::alternation(pattern.split('\n').map(parse).collect::<Result<_, _>>()?);
    RegexBuilder::new(&hir.to_string())
        .nest_limit(4 * DEEPEST)
        .build()
        .map_err(|error| error.to_string())
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
