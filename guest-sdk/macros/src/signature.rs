//! What both attributes ask of a function's signature.

use proc_macro2::Span;
use syn::visit_mut::{VisitMut, visit_lifetime_mut};
use syn::{
    Error, FnArg, GenericParam, Lifetime, Pat, PatIdent, PatType, Result, ReturnType, Safety,
    Signature, Type, parse_quote,
};

/// The most arguments that a call can have.
const ARGUMENTS: usize = 8;

/// Refuses what a call from another machine cannot do.
pub(crate) fn check(signature: &Signature) -> Result<()> {
    if let Some(keyword) = &signature.asyncness {
        return Err(Error::new_spanned(keyword, "a call runs to its end: it cannot be `async`"));
    }
    if let Safety::Unsafe(keyword) = &signature.safety {
        let message = "nobody can promise anything across machines: it cannot be `unsafe`";
        return Err(Error::new_spanned(keyword, message));
    }
    if let Some(abi) = &signature.abi {
        return Err(Error::new_spanned(abi, "the attribute chooses the ABI: remove this"));
    }
    if let Some(dots) = &signature.variadic {
        return Err(Error::new_spanned(dots, "the number of arguments must be known"));
    }
    let generic =
        signature.generics.params.iter().find(|p| !matches!(p, GenericParam::Lifetime(_)));
    if let Some(parameter) = generic {
        let message = "the types must be known: a call cannot be generic but in lifetimes";
        return Err(Error::new_spanned(parameter, message));
    }
    if let Some(argument) = signature.inputs.iter().nth(ARGUMENTS) {
        return Err(Error::new_spanned(argument, "a call has at most eight arguments"));
    }
    if let ReturnType::Type(_, result) = &signature.output {
        refuse_impl(result)?;
    }
    Ok(())
}

/// Returns the arguments, of which none may be `self`.
pub(crate) fn arguments<'a>(signature: &'a Signature) -> Result<Vec<&'a PatType>> {
    let argument = |argument: &'a FnArg| match argument {
        FnArg::Typed(typed) => {
            refuse_impl(&typed.ty)?;
            Ok(typed)
        }
        FnArg::Receiver(receiver) => {
            let message = "there is no `self` in a call from another machine";
            Err(Error::new_spanned(receiver, message))
        }
    };
    signature.inputs.iter().map(argument).collect()
}

/// Returns the argument's name; a pattern has none.
pub(crate) fn plain_name(argument: &PatType) -> Result<&PatIdent> {
    match &*argument.pat {
        Pat::Ident(name) if name.by_ref.is_none() && name.subpat.is_none() => Ok(name),
        pattern => Err(Error::new_spanned(pattern, "an argument must have a plain name")),
    }
}

/// The type as it can be written outside of the function: its lifetimes are
/// left to the compiler.
pub(crate) fn anonymous(declared: &Type) -> Type {
    let mut anonymous = declared.clone();
    Anonymous.visit_type_mut(&mut anonymous);
    anonymous
}

/// The result's type, written or not.
pub(crate) fn result(signature: &Signature) -> Type {
    match &signature.output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, declared) => anonymous(declared),
    }
}

fn refuse_impl(declared: &Type) -> Result<()> {
    match declared {
        Type::ImplTrait(_) => Err(Error::new_spanned(declared, "the type must be known: name it")),
        _ => Ok(()),
    }
}

struct Anonymous;

impl VisitMut for Anonymous {
    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident != "static" {
            *lifetime = Lifetime::new("'_", Span::call_site());
        }
        visit_lifetime_mut(self, lifetime);
    }
}
