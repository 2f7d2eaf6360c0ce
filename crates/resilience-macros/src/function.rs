//! The function under its policies: the body in a closure, and beside it one function per policy that gives the policy.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, GenericArgument, Ident, ItemFn, Meta, Pat, Path, PathArguments, ReceiverKind,
    Result, ReturnType, Token, Type,
};

use crate::policies::{self, Context, Kind, Policy, Source};

/// The only argument of an attribute that stands where one was taken away. It expands to nothing.
const TAKEN: &str = "__taken";

/// The function with the policy of this attribute and of those under it.
pub(crate) fn expand(kind: Kind, arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if arguments.to_string() == TAKEN {
        return Ok(TokenStream::new());
    }
    let mut function: ItemFn = syn::parse2(item).map_err(|error| {
        Error::new(error.span(), format!("#[{}] goes on a function with a body", kind.name()))
    })?;
    let mut attributes = vec![(kind, Span::call_site(), arguments)];
    let taken = take_attributes(&mut function.attrs, &mut attributes)?;

    let result = result_type(&function, kind)?;
    let is_async = function.sig.asyncness.is_some();
    let context =
        Context { function: &function.sig.ident, result: &result.whole, error: &result.error, is_async };
    let mut policies: Vec<Policy> = Vec::new();
    for (kind, span, arguments) in attributes {
        if policies.iter().any(|policy| policy.kind == kind) {
            return Err(Error::new(span, format!("there is a #[{}] on this function already", kind.name())));
        }
        policies.push(policies::build(kind, span, arguments, &context)?);
    }
    let accessors = accessors(&function, &policies);
    let function = under_policies(function, &policies, &result, &taken)?;
    Ok(quote!(#accessors #function))
}

/// Takes the attributes of other policies off the function, so that all of them become one pipeline. Gives their paths.
fn take_attributes(
    attributes: &mut Vec<Attribute>,
    taken: &mut Vec<(Kind, Span, TokenStream)>,
) -> Result<Vec<Path>> {
    let (mut rest, mut paths) = (Vec::new(), Vec::new());
    for attribute in attributes.drain(..) {
        let Some(kind) = Kind::of_path(attribute.path()) else {
            rest.push(attribute);
            continue;
        };
        let span = attribute.path().span();
        paths.push(attribute.path().clone());
        match attribute.meta {
            Meta::Path(_) => taken.push((kind, span, TokenStream::new())),
            Meta::List(list) => taken.push((kind, span, list.tokens)),
            Meta::NameValue(value) => {
                return Err(Error::new(value.span(), format!("write #[{}(…)]", kind.name())));
            }
        }
    }
    *attributes = rest;
    Ok(paths)
}

/// The function's result, and what is in it.
struct ResultType {
    whole: TokenStream,
    value: TokenStream,
    error: TokenStream,
}

fn result_type(function: &ItemFn, kind: Kind) -> Result<ResultType> {
    let ReturnType::Type(_, whole) = &function.sig.output else {
        return Err(Error::new(
            function.sig.ident.span(),
            format!("a function under #[{}] must return a Result: policies judge a call by it", kind.name()),
        ));
    };
    if let Some((value, error)) = written_out(whole) {
        return Ok(ResultType { whole: whole.to_token_stream(), value, error });
    }
    // An alias: the compiler knows what is in it.
    let content = quote_spanned!(whole.span()=> <#whole as ::farol_resilience::expansion::ResultType>);
    Ok(ResultType {
        whole: whole.to_token_stream(),
        value: quote!(#content::Value),
        error: quote!(#content::Error),
    })
}

/// `T` and `E` of `Result<T, E>`, if it is written so.
fn written_out(whole: &Type) -> Option<(TokenStream, TokenStream)> {
    let Type::Path(path) = whole else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == "Result")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    let mut arguments = arguments.args.iter();
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(GenericArgument::Type(value)), Some(GenericArgument::Type(error)), None) => {
            Some((value.to_token_stream(), error.to_token_stream()))
        }
        _ => None,
    }
}

/// The functions that give the policies.
fn accessors(function: &ItemFn, policies: &[Policy]) -> TokenStream {
    let visibility = &function.vis;
    let conditions = function.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    let conditions: Vec<_> = conditions.collect();
    let accessors = policies.iter().filter_map(|policy| {
        let Source::Own { type_name, construction } = &policy.source else { return None };
        let (name, span) = (policy.accessor(&function.sig.ident), policy.span);
        let doc = format!("The {} of `{}`.", policy.kind.name().replace('_', " "), function.sig.ident);
        Some(quote_spanned! {span=>
            #(#conditions)*
            #[doc = #doc]
            #visibility fn #name() -> &'static #type_name {
                // A name that the construction, which is written outside, doesn't mean by chance. Should it panic, each call tells why.
                static __FAROL_RESILIENCE_POLICY: ::std::sync::OnceLock<#type_name> = ::std::sync::OnceLock::new();
                __FAROL_RESILIENCE_POLICY.get_or_init(|| #construction)
            }
        })
    });
    accessors.collect()
}

fn under_policies(
    mut function: ItemFn,
    policies: &[Policy],
    result: &ResultType,
    taken: &[Path],
) -> Result<TokenStream> {
    let is_async = function.sig.asyncness.is_some();
    let repeats = policies.iter().any(|policy| policy.kind == Kind::Retry);
    let ResultType { whole, value, error } = result;

    let clones = if repeats { clone_arguments(&mut function.sig.inputs)? } else { TokenStream::new() };
    let block = &function.block;
    let body = if is_async {
        // The return that is never reached tells the compiler the type that `?` and `return` in the body give.
        let pin = if has_impl(whole.clone()) {
            TokenStream::new()
        } else {
            quote! {
                if let ::core::option::Option::Some(never) = ::core::option::Option::None::<#whole> {
                    return never;
                }
            }
        };
        // Its statements, not the block: braces around a single expression would be warned about.
        let statements = &block.stmts;
        quote!(async move { #pin #(#statements)* })
    } else if has_impl(whole.clone()) {
        quote!((move || #block)())
    } else {
        quote!((move || -> #whole #block)())
    };

    let ident = &function.sig.ident;
    let path = |policy: &Policy| {
        let accessor = policy.accessor(ident);
        match &policy.source {
            Source::Given(policy) => quote!((#policy)),
            Source::Own { .. } if is_associated(&function) => quote!(Self::#accessor()),
            Source::Own { .. } => quote!(#accessor()),
        }
    };
    // A method call, so that what is given may be a policy, a reference to one, or a `LazyLock` of one.
    let owned = |policy: &Policy| {
        let path = path(policy);
        match &policy.source {
            Source::Given(_) => quote!(#path.clone()),
            Source::Own { .. } => quote!(::core::clone::Clone::clone(#path)),
        }
    };
    let call = match policies {
        [] => return Err(Error::new(Span::call_site(), "no policy")),
        [policy] => {
            let (path, method) = (path(policy), if is_async { "call" } else { "call_blocking" });
            let method = Ident::new(method, Span::call_site());
            if repeats {
                quote!(#path.#method(|| { #clones #body }))
            } else {
                quote!(#path.#method(move || #body))
            }
        }
        [outermost, inner @ ..] => {
            let (outermost, inner) = (owned(outermost), inner.iter().map(owned));
            let method = match (is_async, repeats) {
                (true, true) => "call",
                (true, false) => "call_once",
                (false, true) => "call_blocking",
                (false, false) => "call_blocking_once",
            };
            let method = Ident::new(method, Span::call_site());
            let pipeline = quote! {
                ::farol_resilience::Pipeline::outermost(#outermost) #(.then(#inner))*
            };
            if repeats {
                quote!(#pipeline.#method(|| { #clones #body }))
            } else {
                quote!(#pipeline.#method(move || #body))
            }
        }
    };
    let call = if is_async { quote!(#call.await) } else { call };
    // A retry alone refuses nothing.
    let refuses = !matches!(policies, [policy] if policy.kind == Kind::Retry);
    if refuses {
        function.sig.output =
            syn::parse2(quote!(-> ::core::result::Result<#value, ::farol_resilience::Error<#error>>))?;
    }
    let (attributes, visibility, signature) = (&function.attrs, &function.vis, &function.sig);
    Ok(quote! {
        #(#attributes)*
        #[allow(clippy::redundant_closure_call)]
        #visibility #signature {
            // What was taken away is still named, or its import would count as unused.
            #(#[#taken(__taken)] const _: () = ();)*
            #call
        }
    })
}

/// Copies of the arguments for one try. Takes `mut` off the arguments: it is the copies that the body changes.
fn clone_arguments(inputs: &mut Punctuated<FnArg, Token![,]>) -> Result<TokenStream> {
    let mut clones = TokenStream::new();
    for input in inputs {
        match input {
            FnArg::Receiver(receiver) => {
                if !matches!(receiver.kind, ReceiverKind::Reference(_, _, None)) {
                    return Err(Error::new(
                        receiver.span(),
                        "a function that is tried again takes `&self`: anything else can't be given twice",
                    ));
                }
            }
            FnArg::Typed(argument) => {
                let span = argument.ty.span();
                if matches!(&*argument.ty, Type::Reference(reference) if is_mutable(reference)) {
                    return Err(Error::new(
                        span,
                        "a function that is tried again can't take a `&mut`: it can't be given twice",
                    ));
                }
                let Pat::Ident(pattern) = &mut *argument.pat else {
                    return Err(Error::new(
                        argument.pat.span(),
                        "an argument of a function that is tried again needs a name: it is cloned for each try",
                    ));
                };
                let name = &pattern.ident;
                let mutable = pattern.mutability.take();
                clones
                    .extend(quote_spanned!(span=> let #mutable #name = ::core::clone::Clone::clone(&#name);));
            }
        }
    }
    Ok(clones)
}

fn is_mutable(reference: &syn::TypeReference) -> bool {
    reference.mutability.is_some()
}

/// Whether the function belongs to a type: it has a `self`, or mentions `Self`.
fn is_associated(function: &ItemFn) -> bool {
    function.sig.receiver().is_some() || mentions(function.to_token_stream(), "Self")
}

/// Whether `impl Trait` is in a type: such a type can't be written down again.
fn has_impl(tokens: TokenStream) -> bool {
    mentions(tokens, "impl")
}

fn mentions(tokens: TokenStream, word: &str) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Ident(ident) => ident == format_ident!("{word}"),
        TokenTree::Group(group) => mentions(group.stream(), word),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: Kind, arguments: &str, item: &str) -> String {
        let error = expand(kind, arguments.parse().unwrap(), item.parse().unwrap()).unwrap_err();
        error.to_string()
    }

    const CALL: &str = "fn call(id: u32) -> Result<u32, u8> { Ok(id) }";

    #[test]
    fn a_wrong_argument_is_named_and_the_right_ones_are_told() {
        let message = refused(Kind::Bulkhead, "max_concurent = 3", CALL);
        assert!(message.starts_with(
            "#[bulkhead] has no argument `max_concurent`; it has `policy`, `name`, `max_concurrent`"
        ));
        assert_eq!(refused(Kind::Bulkhead, "max_concurrent = 0", CALL), "must be at least 1");
        assert_eq!(refused(Kind::Bulkhead, "max_concurrent = \"3\"", CALL), "must be a whole number");
        assert_eq!(refused(Kind::Bulkhead, "name = \"a\", name = \"b\"", CALL), "`name` is given twice");
        assert!(refused(Kind::Bulkhead, "max_wait = \"2 parsecs\"", CALL).starts_with("a duration is"));
        let both = refused(Kind::CircuitBreaker, "recovery_timeout = 60, open_for = 60", CALL);
        assert_eq!(both, "`open_for` is another name of `recovery_timeout`");
        for (arguments, message) in [
            ("recovery_timeout = 0", "must be longer than nothing"),
            ("open_for = \"0ms\"", "must be longer than nothing"),
            ("failure_rate = 50", "must be more than 0 and at most 1: half of the calls is 0.5"),
            ("failure_rate = 0.0", "must be more than 0 and at most 1: half of the calls is 0.5"),
            ("failure_rate = 0.5, window_calls = 5, minimum_calls = 6", "must be at most `window_calls`"),
        ] {
            assert_eq!(refused(Kind::CircuitBreaker, arguments, CALL), message, "{arguments}");
        }
        let jitter = refused(Kind::Retry, "idempotent, jitter = \"some\"", CALL);
        assert_eq!(jitter, "must be one of \"full\", \"equal\", \"decorrelated\", \"none\"");
    }

    #[test]
    fn a_retry_must_say_whether_the_function_may_be_repeated() {
        assert!(refused(Kind::Retry, "max_tries = 3", CALL).contains("more than once"));
        assert_eq!(refused(Kind::Retry, "idempotent = true", CALL), "`idempotent` takes no value");
        assert_eq!(
            refused(Kind::Retry, "not_idempotent", CALL),
            "`not_idempotent` needs a value: `not_idempotent = …`"
        );
    }

    #[test]
    fn a_policy_that_is_given_stands_alone_and_brings_no_function_of_its_own() {
        for (kind, arguments) in [
            (Kind::CircuitBreaker, "policy = self.breaker, probes = 2"),
            (Kind::Retry, "policy = RETRY, idempotent"),
            (Kind::Bulkhead, "name = \"db\", policy = DB"),
        ] {
            assert!(refused(kind, arguments, CALL).starts_with("no other argument goes with `policy`"));
        }
        assert!(refused(Kind::Timeout, "policy = SHORT", CALL).contains("needs an async function"));
        let written = expand(Kind::Retry, "policy = RETRY".parse().unwrap(), CALL.parse().unwrap()).unwrap();
        assert_eq!(written.to_string().matches("fn ").count(), 1, "{written}");
    }

    #[test]
    fn functions_that_cannot_be_under_a_policy_are_told_why() {
        assert!(refused(Kind::CircuitBreaker, "", "fn call() {}").contains("must return a Result"));
        assert!(refused(Kind::CircuitBreaker, "", "struct Call;").contains("goes on a function"));
        assert!(refused(Kind::Timeout, "\"2s\"", CALL).contains("needs an async function"));
        let mutable = "fn call(list: &mut Vec<u8>) -> Result<(), ()> { Ok(()) }";
        assert!(refused(Kind::Retry, "idempotent", mutable).contains("can't be given twice"));
        let by_value = "fn call(self) -> Result<(), ()> { Ok(()) }";
        assert!(refused(Kind::Retry, "idempotent", by_value).contains("takes `&self`"));
        let unnamed = "fn call((a, b): (u8, u8)) -> Result<(), ()> { Ok(()) }";
        assert!(refused(Kind::Retry, "idempotent", unnamed).contains("needs a name"));
        let twice = format!("#[farol_resilience::bulkhead] {CALL}");
        assert!(refused(Kind::Bulkhead, "", &twice).contains("already"));
    }
}
