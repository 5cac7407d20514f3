//! What may stand in the parentheses of an attribute: `name = "…"`.

use proc_macro2::TokenStream;
use syn::parse::{Parse, ParseStream, Parser};
use syn::{Error, Ident, LitStr, Result, Token};

/// Returns the name on the wire: the option's, or else that of the function.
pub(crate) fn name(options: TokenStream, function: &Ident) -> Result<LitStr> {
    let given = (|input: ParseStream<'_>| input.parse::<Options>()).parse2(options)?.name;
    Ok(given.unwrap_or_else(|| {
        let name = function.to_string();
        LitStr::new(name.strip_prefix("r#").unwrap_or(&name), function.span())
    }))
}

struct Options {
    name: Option<LitStr>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.is_empty() {
            return Ok(Self { name: None });
        }
        let key: Ident = input.parse()?;
        if key != "name" {
            return Err(Error::new(key.span(), "the only option is `name = \"…\"`"));
        }
        input.parse::<Token![=]>()?;
        let name: LitStr = input.parse()?;
        input.parse::<Option<Token![,]>>()?;
        if !input.is_empty() {
            return Err(input.error("the only option is `name = \"…\"`"));
        }
        if name.value().is_empty() {
            return Err(Error::new(name.span(), "a function needs a name"));
        }
        Ok(Self { name: Some(name) })
    }
}
