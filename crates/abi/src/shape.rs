//! The shape of a value on the wire, and its canonical text.
//!
//! The text is what two sides compare. It is written by one `const fn`, in the
//! guest at compile time and in the host at run time, so it cannot differ.

use alloc::string::String;
use alloc::vec;

/// The shape of a type on the wire. Names of types are not part of it; names of
/// fields and variants are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A type with a fixed name: `u8`, `str`, `()`.
    Plain(&'static str),
    /// A sequence of any length: `[T]`.
    Seq(&'static Shape),
    /// A sequence of fixed length: `[T; n]`.
    Array(&'static Shape, usize),
    /// A map, as a sequence of pairs: `{K: V}`.
    Map(&'static Shape, &'static Shape),
    /// An optional value: `T?`.
    Option(&'static Shape),
    /// A tuple: `(A, B)`.
    Tuple(&'static [&'static Shape]),
    /// A struct with named fields: `{a: A, b: B}`.
    Struct(&'static [(&'static str, &'static Shape)]),
    /// An enum: `<A | B(T) | C{x: X}>`.
    Enum(&'static [(&'static str, &'static Shape)]),
}

/// The shape of `()`, and of a variant without fields.
pub const UNIT: Shape = Shape::Plain("()");

/// What a function takes and gives.
///
/// ```
/// use cellule_abi::{Schema, Signature};
/// let greet = Signature::of::<(&str, u32), Option<String>>();
/// assert_eq!(greet.text(), "fn(str, u32) -> str?");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// The shape of the argument tuple.
    pub args: Shape,
    /// The shape of the result.
    pub result: Shape,
}

impl Signature {
    /// The signature of a function from `A`, a tuple, to `R`.
    pub const fn of<A: crate::Schema, R: crate::Schema>() -> Self {
        Self { args: A::SHAPE, result: R::SHAPE }
    }

    /// The signature of a call with these arguments that expects an `R`.
    pub const fn of_call<R: crate::Schema>(args: &impl crate::Args) -> Self {
        const fn of<A: crate::Schema, R: crate::Schema>(_: &A) -> Signature {
            Signature::of::<A, R>()
        }
        of::<_, R>(args)
    }

    /// The length of the text in bytes.
    pub const fn text_len(&self) -> usize {
        self.emit(Writer { out: None, at: 0 }).at
    }

    /// Writes the text into an array of exactly its length, at compile time.
    pub const fn text_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.emit(Writer { out: Some(&mut bytes), at: 0 });
        bytes
    }

    /// Returns the text.
    pub fn text(&self) -> String {
        let mut bytes = vec![0; self.text_len()];
        self.emit(Writer { out: Some(&mut bytes), at: 0 });
        String::from_utf8(bytes).unwrap_or_default()
    }

    const fn emit<'a>(&self, writer: Writer<'a>) -> Writer<'a> {
        let writer = writer.text("fn");
        let writer = match &self.args {
            Shape::Tuple(_) => writer.shape(&self.args),
            _ => writer.text("()"),
        };
        writer.text(" -> ").shape(&self.result)
    }
}

/// Whether values of this shape take at least one byte on the wire. Sequences of
/// values that take none are refused: their length would cost a sender nothing.
pub const fn takes_bytes(shape: &Shape) -> bool {
    match shape {
        Shape::Plain(name) => !matches!(name.as_bytes(), b"()"),
        Shape::Array(inner, len) => *len > 0 && takes_bytes(inner),
        Shape::Tuple(items) => {
            let mut rest = *items;
            while let [first, tail @ ..] = rest {
                if takes_bytes(first) {
                    return true;
                }
                rest = tail;
            }
            false
        }
        Shape::Struct(fields) => {
            let mut rest = *fields;
            while let [first, tail @ ..] = rest {
                if takes_bytes(first.1) {
                    return true;
                }
                rest = tail;
            }
            false
        }
        Shape::Seq(_) | Shape::Map(..) | Shape::Option(_) | Shape::Enum(_) => true,
    }
}

/// Counts, and writes if there is something to write into.
struct Writer<'a> {
    out: Option<&'a mut [u8]>,
    at: usize,
}

impl<'a> Writer<'a> {
    const fn text(mut self, text: &str) -> Self {
        let mut rest = text.as_bytes();
        while let [first, tail @ ..] = rest {
            if let Some(out) = &mut self.out {
                out[self.at] = *first;
            }
            self.at += 1;
            rest = tail;
        }
        self
    }

    const fn number(self, number: usize) -> Self {
        const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
        let writer = if number >= 10 { self.number(number / 10) } else { self };
        writer.text(DIGITS[number % 10])
    }

    const fn shape(self, shape: &Shape) -> Self {
        match shape {
            Shape::Plain(name) => self.text(name),
            Shape::Seq(item) => self.text("[").shape(item).text("]"),
            Shape::Array(item, len) => self.text("[").shape(item).text("; ").number(*len).text("]"),
            Shape::Map(key, value) => self.text("{").shape(key).text(": ").shape(value).text("}"),
            Shape::Option(inner) => self.shape(inner).text("?"),
            Shape::Tuple(items) => {
                let mut writer = self.text("(");
                let mut rest = *items;
                while let [first, tail @ ..] = rest {
                    writer = writer.shape(first);
                    if !tail.is_empty() {
                        writer = writer.text(", ");
                    }
                    rest = tail;
                }
                writer.text(")")
            }
            Shape::Struct(fields) => self.text("{").named(fields, ": ", ", ").text("}"),
            Shape::Enum(variants) => self.text("<").named(variants, "", " | ").text(">"),
        }
    }

    /// Fields with `": "`, or variants with `""`, where a unit is left out and
    /// a value that is no tuple or struct is put in parentheses.
    const fn named(mut self, items: &[(&str, &Shape)], between: &str, separator: &str) -> Self {
        let mut rest = items;
        while let [(name, shape), tail @ ..] = rest {
            self = self.text(name);
            let variant = between.is_empty();
            self = match shape {
                Shape::Plain(plain) if variant && matches!(plain.as_bytes(), b"()") => self,
                Shape::Tuple(_) | Shape::Struct(_) if variant => self.shape(shape),
                _ if variant => self.text("(").shape(shape).text(")"),
                _ => self.text(between).shape(shape),
            };
            if !tail.is_empty() {
                self = self.text(separator);
            }
            rest = tail;
        }
        self
    }
}
