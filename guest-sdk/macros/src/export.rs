//! `#[guest_function]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{ItemFn, Pat, Result};

use crate::options::{self, Options};
use crate::signature;

/// The function as it was, and beside it the code that serves calls of it and
/// the record that lists it.
pub(crate) fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let function: ItemFn = syn::parse2(item)?;
    signature::check(&function.sig)?;
    let arguments = signature::arguments(&function.sig)?;
    for argument in &arguments {
        if !matches!(*argument.pat, Pat::Wild(_)) {
            signature::plain_name(argument)?;
        }
    }

    let ident = &function.sig.ident;
    let Options { name, priority } = options::of_guest(options, ident)?;
    let priority = match priority {
        Some(number) => quote!(::core::option::Option::Some(#number)),
        None => quote!(::core::option::Option::None),
    };
    let types: Vec<_> = arguments.iter().map(|a| signature::anonymous(&a.ty)).collect();
    let values: Vec<_> = (0..types.len()).map(|n| format_ident!("argument_{n}")).collect();
    let result = signature::result(&function.sig);
    Ok(quote! {
        #function

        const _: () = {
            fn entry(call: &mut ::cellule_guest::__private::Call<'_>) {
                let arguments: ::core::option::Option<(#(#types,)*)> = call.arguments();
                let ::core::option::Option::Some((#(#values,)*)) = arguments else {
                    return call.refuse();
                };
                call.finish(&#ident(#(#values),*));
            }
            ::cellule_guest::__export!(
                #name,
                ::cellule_guest::__private::Signature::of::<(#(#types,)*), #result>(),
                entry,
                #priority
            );
        };
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(item: TokenStream) -> String {
        expand(TokenStream::new(), item).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_called_is_refused_with_its_reason() {
        assert!(
            refusal(quote!(
                async fn f() {}
            ))
            .contains("`async`")
        );
        assert!(
            refusal(quote!(
                unsafe fn f() {}
            ))
            .contains("`unsafe`")
        );
        assert!(
            refusal(quote!(
                extern "C" fn f() {}
            ))
            .contains("ABI")
        );
        assert!(
            refusal(quote!(
                fn f<T>(a: T) {}
            ))
            .contains("generic")
        );
        assert!(
            refusal(quote!(
                fn f<const N: usize>(a: [u8; N]) {}
            ))
            .contains("generic")
        );
        assert!(
            refusal(quote!(
                fn f(&self) {}
            ))
            .contains("`self`")
        );
        assert!(
            refusal(quote!(
                fn f((a, b): (u8, u8)) {}
            ))
            .contains("plain name")
        );
        assert!(
            refusal(quote!(
                fn f(a: impl Copy) {}
            ))
            .contains("name it")
        );
        assert!(
            refusal(quote!(
                fn f() -> impl Copy {}
            ))
            .contains("name it")
        );
        let nine = quote!(
            fn f(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8, i: u8) {}
        );
        assert!(refusal(nine).contains("at most eight"));
        assert!(
            refusal(quote!(
                struct S;
            ))
            .contains("fn")
        );
    }

    #[test]
    fn the_name_is_the_functions_or_the_options() {
        let item = quote!(
            pub fn r#match(text: &str) -> bool {
                true
            }
        );
        let plain = expand(TokenStream::new(), item.clone()).unwrap().to_string();
        assert!(plain.contains("(\"match\" ,"), "{plain}");
        let named = expand(quote!(name = "a.b"), item.clone()).unwrap().to_string();
        assert!(named.contains("(\"a.b\" ,"), "{named}");
        assert!(expand(quote!(nome = "a"), item.clone()).is_err());
        assert!(expand(quote!(name = ""), item.clone()).is_err());
        assert!(expand(quote!(name = "a", more), item).is_err());
    }

    #[test]
    fn lifetimes_are_left_to_the_compiler() {
        let item = quote!(
            fn f<'a>(a: Cow<'a, str>, b: &'static str) -> &'a str {
                b
            }
        );
        let text = expand(TokenStream::new(), item).unwrap().to_string();
        assert!(
            text.contains("of :: < (Cow < '_ , str > , & 'static str ,) , & '_ str >"),
            "{text}"
        );
    }
}
