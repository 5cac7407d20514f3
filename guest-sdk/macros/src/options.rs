//! What may stand in the parentheses of an attribute: `name = "…"`, and for a
//! guest function `priority = …`.

use proc_macro2::TokenStream;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Error, Ident, LitInt, LitStr, Result, Token};

/// What an attribute says.
pub(crate) struct Options {
    /// The name on the wire: the option's, or else that of the function.
    pub(crate) name: LitStr,
    /// The priority, 0 to 31.
    pub(crate) priority: Option<LitInt>,
}

/// Reads the options of a guest function.
pub(crate) fn of_guest(options: TokenStream, function: &Ident) -> Result<Options> {
    let Given { name, priority, .. } = given(options)?;
    Ok(Options { name: name.unwrap_or_else(|| plain(function)), priority })
}

/// Reads the options of a host function: its name on the wire.
pub(crate) fn of_host(options: TokenStream, function: &Ident) -> Result<LitStr> {
    let Given { name, priority } = given(options)?;
    match priority {
        Some(number) => {
            Err(Error::new(number.span(), "a host function is not a task of the guest"))
        }
        None => Ok(name.unwrap_or_else(|| plain(function))),
    }
}

fn plain(function: &Ident) -> LitStr {
    let name = function.to_string();
    LitStr::new(name.strip_prefix("r#").unwrap_or(&name), function.span())
}

#[derive(Default)]
struct Given {
    name: Option<LitStr>,
    priority: Option<LitInt>,
}

fn given(options: TokenStream) -> Result<Given> {
    (|input: ParseStream<'_>| input.parse::<Given>()).parse2(options)
}

impl Parse for Given {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut given = Self::default();
        while !input.is_empty() {
            given.option(input)?;
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(given)
    }
}

impl Given {
    fn option(&mut self, input: ParseStream<'_>) -> Result<()> {
        let key: Ident = input.parse()?;
        input.parse::<Token![=]>()?;
        let twice = match key.to_string().as_str() {
            "name" => self.name.replace(name(input)?).is_some(),
            "priority" => self.priority.replace(priority(input)?).is_some(),
            _ => return Err(Error::new(key.span(), UNKNOWN)),
        };
        if twice { Err(Error::new(key.span(), format!("`{key}` is given twice"))) } else { Ok(()) }
    }
}

const UNKNOWN: &str = "the options are `name = \"…\"` and, of a guest function, `priority = …`";

fn name(input: ParseStream<'_>) -> Result<LitStr> {
    let name: LitStr = input.parse()?;
    match name.value().is_empty() {
        true => Err(Error::new(name.span(), "a function needs a name")),
        false => Ok(name),
    }
}

fn priority(input: ParseStream<'_>) -> Result<LitInt> {
    let number: LitInt = input.parse()?;
    match number.base10_parse::<u8>() {
        Ok(0..=31) => Ok(number),
        _ => Err(Error::new(number.span(), "a priority is 0 to 31")),
    }
}
