//! `#[host_function]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{Attribute, Error, Result, ReturnType, Signature, Token, Visibility, token};

use crate::{options, signature};

/// The declared function, with a body that calls the host, and in it the record
/// that lists it.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let Declaration { attributes, visibility, signature } = syn::parse2(item)?;
    signature::check(&signature)?;
    if let Some(keyword) = &signature.constness {
        return Err(Error::new_spanned(keyword, "the compiler has no host to call"));
    }
    let arguments = signature::arguments(&signature)?;
    let values = arguments.iter().map(|argument| {
        let name = signature::plain_name(argument)?;
        match &name.mutability {
            Some(keyword) => Err(Error::new_spanned(keyword, "there is no body to change it")),
            None => Ok(&name.ident),
        }
    });
    let values = values.collect::<Result<Vec<_>>>()?;
    if let ReturnType::Default = signature.output {
        let message = "a host function returns `Result<T, HostError>`: the host may refuse";
        return Err(Error::new_spanned(&signature, message));
    }

    let name = options::of_host(options, &signature.ident)?;
    let types = arguments.iter().map(|argument| signature::anonymous(&argument.ty));
    let result = signature::result(&signature);
    // Spanned, so that a type that is no such `Result` is what the error shows.
    let declared = quote_spanned! { result.span() =>
        <#result as ::cellule_guest::__private::HostResult>
    };
    Ok(quote! {
        #(#attributes)*
        #visibility #signature {
            #declared::of(::cellule_guest::__private::call_host(
                ::cellule_guest::__import!(
                    #name,
                    ::cellule_guest::__private::Signature::of::<(#(#types,)*), #declared::Value>()
                ),
                &(#(#values,)*),
            ))
        }
    })
}

/// A function's signature and a semicolon.
struct Declaration {
    attributes: Vec<Attribute>,
    visibility: Visibility,
    signature: Signature,
}

impl Parse for Declaration {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let attributes = input.call(Attribute::parse_outer)?;
        let visibility = input.parse()?;
        let signature = input.parse()?;
        if input.peek(token::Brace) {
            return Err(input.error("the body is the host's: end the declaration with `;`"));
        }
        input.parse::<Token![;]>()?;
        Ok(Self { attributes, visibility, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(item: TokenStream) -> String {
        expand(TokenStream::new(), item).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_declaration_is_refused_with_its_reason() {
        assert!(
            refusal(quote!(
                fn f() -> Result<u8, HostError> {
                    Ok(1)
                }
            ))
            .contains("host's")
        );
        assert!(
            refusal(quote!(
                fn f();
            ))
            .contains("Result<T, HostError>")
        );
        assert!(
            refusal(quote!(
                async fn f() -> R;
            ))
            .contains("`async`")
        );
        assert!(
            refusal(quote!(
                unsafe fn f() -> R;
            ))
            .contains("`unsafe`")
        );
        assert!(
            refusal(quote!(
                const fn f() -> R;
            ))
            .contains("compiler")
        );
        assert!(
            refusal(quote!(
                fn f(_: u8) -> R;
            ))
            .contains("plain name")
        );
        assert!(
            refusal(quote!(
                fn f(mut a: u8) -> R;
            ))
            .contains("no body")
        );
        assert!(
            refusal(quote!(
                fn f(self) -> R;
            ))
            .contains("`self`")
        );
    }

    #[test]
    fn attributes_and_visibility_stay() {
        let item = quote!(
            /// Doc.
            #[must_use]
            pub(crate) fn read(path: &str) -> Result<u8, HostError>;
        );
        let text = expand(TokenStream::new(), item).unwrap().to_string();
        assert!(text.contains("must_use") && text.contains("Doc."), "{text}");
        assert!(text.contains("pub (crate) fn read (path : & str)"), "{text}");
        assert!(text.contains("& (path ,)"), "{text}");
    }
}
