//! `#[derive(Schema)]`: the shape of a user's type, as a constant.
//!
//! One derive under three names, because the code it writes must name the
//! crate by which the user knows the trait: `cellule`, `cellule_guest`, or, in
//! a crate that both sides share, `cellule_abi`. Each re-exports its own as
//! `Schema`.
#![forbid(unsafe_code)]

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Fields, GenericParam, parse_quote};

/// Derives `cellule_abi::Schema`.
#[proc_macro_derive(SchemaForAbi)]
pub fn schema_for_abi(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    derive(input, &quote!(::cellule_abi))
}

/// Derives `cellule::Schema`.
#[proc_macro_derive(SchemaForHost)]
pub fn schema_for_host(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    derive(input, &quote!(::cellule::abi))
}

/// Derives `cellule_guest::Schema`.
#[proc_macro_derive(SchemaForGuest)]
pub fn schema_for_guest(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    derive(input, &quote!(::cellule_guest::abi))
}

fn derive(input: proc_macro::TokenStream, abi: &TokenStream) -> proc_macro::TokenStream {
    let parsed = syn::parse::<DeriveInput>(input);
    parsed.and_then(|input| expand(&input, abi)).unwrap_or_else(|e| e.into_compile_error()).into()
}

fn expand(input: &DeriveInput, abi: &TokenStream) -> syn::Result<TokenStream> {
    let shape = shape_of(input, abi)?;
    let name = &input.ident;
    let mut generics = input.generics.clone();
    for parameter in &mut generics.params {
        if let GenericParam::Type(parameter) = parameter {
            parameter.bounds.push(parse_quote!(#abi::Schema));
        }
    }
    let (impl_generics, arguments, conditions) = generics.split_for_impl();
    let shortened = input.generics.params.iter().map(|parameter| match parameter {
        GenericParam::Lifetime(_) => quote!('__at),
        GenericParam::Type(parameter) => {
            let name = &parameter.ident;
            quote!(#name)
        }
        GenericParam::Const(parameter) => {
            let name = &parameter.ident;
            quote!(#name)
        }
    });
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #abi::Schema for #name #arguments #conditions {
            const SHAPE: #abi::Shape = #shape;
            type At<'__at> = #name<#(#shortened),*>;
        }
    })
}

fn shape_of(input: &DeriveInput, abi: &TokenStream) -> syn::Result<TokenStream> {
    match &input.data {
        Data::Struct(data) => fields_shape(&data.fields, abi),
        Data::Enum(data) => {
            let variants = data
                .variants
                .iter()
                .map(|variant| {
                    let name = plain_name(&variant.ident);
                    let shape = fields_shape(&variant.fields, abi)?;
                    Ok(quote!((#name, &#shape)))
                })
                .collect::<syn::Result<Vec<_>>>()?;
            Ok(quote!(#abi::Shape::Enum(&[#(#variants),*])))
        }
        Data::Union(_) => {
            Err(syn::Error::new_spanned(&input.ident, "a union has no shape on the wire"))
        }
    }
}

fn fields_shape(fields: &Fields, abi: &TokenStream) -> syn::Result<TokenStream> {
    let types = fields.iter().map(|field| &field.ty);
    Ok(match fields {
        Fields::Unit => quote!(#abi::shape::UNIT),
        Fields::Unnamed(unnamed) if unnamed.unnamed.len() == 1 => {
            quote!(#(<#types as #abi::Schema>::SHAPE)*)
        }
        Fields::Unnamed(_) => {
            quote!(#abi::Shape::Tuple(&[#(&<#types as #abi::Schema>::SHAPE),*]))
        }
        Fields::Named(named) => {
            let names = named.named.iter().filter_map(|f| f.ident.as_ref().map(plain_name));
            quote!(#abi::Shape::Struct(&[#((#names, &<#types as #abi::Schema>::SHAPE)),*]))
        }
    })
}

/// A name as serde writes it: without `r#`.
fn plain_name(name: &syn::Ident) -> String {
    let name = name.to_string();
    name.strip_prefix("r#").map_or_else(|| name.clone(), str::to_owned)
}
