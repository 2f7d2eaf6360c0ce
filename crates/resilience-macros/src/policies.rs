//! The policies that the attributes make: type and construction, from the arguments.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Expr, Path, Result};

use crate::arguments::{Arguments, duration, number, one_of, positive, share, some_time, written_number};

/// What an attribute makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    CircuitBreaker,
    Retry,
    Bulkhead,
    Timeout,
}

impl Kind {
    const ALL: [Self; 4] = [Self::CircuitBreaker, Self::Retry, Self::Bulkhead, Self::Timeout];

    /// The attribute's name, and what the policy's function ends in.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CircuitBreaker => "circuit_breaker",
            Self::Retry => "retry",
            Self::Bulkhead => "bulkhead",
            Self::Timeout => "timeout",
        }
    }

    /// The kind that an attribute of this path makes: `retry` or `farol_resilience::retry`.
    pub(crate) fn of_path(path: &Path) -> Option<Self> {
        let mut segments = path.segments.iter().rev();
        let last = segments.next()?;
        if segments.next().is_some_and(|crate_name| crate_name.ident != "farol_resilience") {
            return None;
        }
        Self::ALL.into_iter().find(|kind| last.ident == kind.name())
    }
}

/// A policy that a function shall have.
pub(crate) struct Policy {
    pub(crate) kind: Kind,
    pub(crate) source: Source,
    pub(crate) span: Span,
}

/// Where a policy comes from.
pub(crate) enum Source {
    /// It is the function's own.
    Own { type_name: TokenStream, construction: TokenStream },
    /// An expression that the function evaluates gives it.
    Given(Expr),
}

impl Policy {
    /// The function that gives the policy of this function.
    pub(crate) fn accessor(&self, function: &Ident) -> Ident {
        let name = function.to_string();
        format_ident!("{}_{}", name.trim_start_matches("r#"), self.kind.name(), span = function.span())
    }
}

/// What a policy has to know of its function.
pub(crate) struct Context<'a> {
    pub(crate) function: &'a Ident,
    pub(crate) result: &'a TokenStream,
    pub(crate) error: &'a TokenStream,
    pub(crate) is_async: bool,
}

pub(crate) fn build(kind: Kind, span: Span, arguments: TokenStream, context: &Context<'_>) -> Result<Policy> {
    let mut arguments = Arguments::parse(kind.name(), span, arguments)?;
    if let Some(given) = arguments.value("policy")? {
        if kind == Kind::Timeout {
            needs_async(&arguments, context)?;
        }
        arguments.finish_given()?;
        return Ok(Policy { kind, source: Source::Given(given), span });
    }
    let name = match arguments.value("name")? {
        Some(name) => quote!(#name),
        None => {
            let function = context.function.to_string();
            quote!(::core::concat!(::core::module_path!(), "::", #function))
        }
    };
    let (type_name, construction) = match kind {
        Kind::CircuitBreaker => circuit_breaker(&mut arguments, &name, context)?,
        Kind::Retry => retry(&mut arguments, &name, context)?,
        Kind::Bulkhead => bulkhead(&mut arguments, &name)?,
        Kind::Timeout => timeout(&mut arguments, &name, context)?,
    };
    arguments.finish()?;
    Ok(Policy { kind, source: Source::Own { type_name, construction }, span })
}

fn needs_async(arguments: &Arguments, context: &Context<'_>) -> Result<()> {
    if context.is_async {
        return Ok(());
    }
    Err(arguments.error(
        "needs an async function: a sync one can't be given up. `Timeout::call_blocking` hands it a deadline",
    ))
}

/// `.method(value)` if there is a value.
fn set(method: &str, value: Option<TokenStream>) -> TokenStream {
    let method = Ident::new(method, Span::call_site());
    value.map(|value| quote!(.#method(#value))).unwrap_or_default()
}

type Setting = (&'static str, fn(&Expr) -> Result<TokenStream>);

/// The settings whose argument has the name of the builder's method.
fn settings(arguments: &mut Arguments, settings: &[Setting]) -> Result<TokenStream> {
    let mut calls = TokenStream::new();
    for (name, read) in settings {
        let value = arguments.value(name)?;
        calls.extend(set(name, value.as_ref().map(read).transpose()?));
    }
    Ok(calls)
}

fn circuit_breaker(
    arguments: &mut Arguments,
    name: &TokenStream,
    context: &Context<'_>,
) -> Result<(TokenStream, TokenStream)> {
    let failures = arguments.value_of("failure_threshold", "consecutive_failures")?;
    let open_for = arguments.value_of("recovery_timeout", "open_for")?;
    let window_calls = arguments.value("window_calls")?;
    let window_time = arguments.value("window_time")?;
    let mut builder = quote!(::farol_resilience::CircuitBreaker::builder(#name));
    builder.extend(set("consecutive_failures", failures.as_ref().map(positive).transpose()?));
    builder.extend(set("open_for", open_for.as_ref().map(some_time).transpose()?));
    builder.extend(set("window_of_calls", window_calls.as_ref().map(positive).transpose()?));
    builder.extend(set("window_of_time", window_time.as_ref().map(some_time).transpose()?));
    let minimum = arguments.value("minimum_calls")?;
    builder.extend(set("minimum_calls", minimum.as_ref().map(positive).transpose()?));
    if let (Some(minimum), Some(window)) = (&minimum, &window_calls)
        && written_number(minimum) > written_number(window)
        && written_number(window).is_some()
    {
        return Err(syn::Error::new(minimum.span(), "must be at most `window_calls`"));
    }
    builder.extend(settings(
        arguments,
        &[("failure_rate", share), ("probes", positive), ("successes_to_close", positive)],
    )?);
    let breaker = quote!(#builder.build().expect("the arguments of #[circuit_breaker] make sense together"));
    let Some(predicate) = arguments.value("failure_if")? else {
        return Ok((quote!(::farol_resilience::CircuitBreaker), breaker));
    };
    let (result, span) = (context.result, predicate.span());
    let function = quote_spanned!(span=> fn(&#result) -> bool);
    Ok((
        quote!(::farol_resilience::CircuitBreaker<::farol_resilience::classify::FailureIf<#function>>),
        quote_spanned!(span=> #breaker.failure_if({ let predicate: #function = #predicate; predicate })),
    ))
}

fn retry(
    arguments: &mut Arguments,
    name: &TokenStream,
    context: &Context<'_>,
) -> Result<(TokenStream, TokenStream)> {
    let idempotent = arguments.word("idempotent")?;
    let not_idempotent = arguments.value("not_idempotent")?;
    let when = arguments.value("when")?;
    let when_error = arguments.value("when_error")?;
    let (result, error) = (context.result, context.error);
    let of_error = quote!(fn(&#error) -> bool);
    let of_result = quote!(fn(&#result) -> bool);
    let module = quote!(::farol_resilience::retry);
    let idempotent_builder = quote!(::farol_resilience::Retry::idempotent(#name));
    let (decide, builder) = match (idempotent, not_idempotent, when, when_error) {
        (false, None, ..) => {
            return Err(arguments.error(
                "must say whether the function may be carried out more than once: write `idempotent`, or \
                 `not_idempotent = |error| …` that is true for errors which prove that it wasn't carried out",
            ));
        }
        (true, Some(predicate), ..) => {
            return Err(syn::Error::new(predicate.span(), "it is `idempotent` already"));
        }
        (false, Some(_), Some(other), _)
        | (false, Some(_), None, Some(other))
        | (_, None, Some(_), Some(other)) => {
            return Err(syn::Error::new(other.span(), "another predicate says what is tried again already"));
        }
        (false, Some(predicate), None, None) => (
            quote!(#module::WhenError<#of_error>),
            quote_spanned!(predicate.span()=>
                ::farol_resilience::Retry::not_idempotent(#name, { let predicate: #of_error = #predicate; predicate })),
        ),
        (true, None, Some(predicate), None) => (
            quote!(#module::When<#of_result>),
            quote_spanned!(predicate.span()=>
                #idempotent_builder.when({ let predicate: #of_result = #predicate; predicate })),
        ),
        (true, None, None, Some(predicate)) => (
            quote!(#module::WhenError<#of_error>),
            quote_spanned!(predicate.span()=>
                #idempotent_builder.when_error({ let predicate: #of_error = #predicate; predicate })),
        ),
        (true, None, None, None) => (quote!(#module::AnyFailure), idempotent_builder),
    };
    let jitter = match arguments.value("jitter")? {
        None => None,
        Some(value) => {
            const WORDS: [(&str, &str); 4] =
                [("full", "Full"), ("equal", "Equal"), ("decorrelated", "Decorrelated"), ("none", "None")];
            let jitter = Ident::new(one_of(&value, &WORDS)?, value.span());
            Some(quote!(#module::Jitter::#jitter))
        }
    };
    let mut rest = settings(
        arguments,
        &[
            ("max_tries", positive),
            ("initial_delay", duration),
            ("multiplier", number),
            ("max_delay", duration),
            ("max_elapsed", duration),
            ("budget", |budget| Ok(quote!(#budget))),
        ],
    )?;
    rest.extend(set("jitter", jitter));
    Ok((quote!(::farol_resilience::Retry<#decide>), quote!(#builder #rest.build())))
}

fn bulkhead(arguments: &mut Arguments, name: &TokenStream) -> Result<(TokenStream, TokenStream)> {
    let rest = settings(
        arguments,
        &[
            ("max_concurrent", positive),
            // Here 0 makes sense: nobody waits.
            ("max_waiting", |calls| Ok(quote!(#calls))),
            ("max_wait", duration),
        ],
    )?;
    let policy = quote!(::farol_resilience::Bulkhead);
    Ok((policy.clone(), quote!(#policy::builder(#name) #rest.build())))
}

fn timeout(
    arguments: &mut Arguments,
    name: &TokenStream,
    context: &Context<'_>,
) -> Result<(TokenStream, TokenStream)> {
    needs_async(arguments, context)?;
    let after = match (arguments.bare_value(), arguments.value("after")?) {
        (Some(after), None) | (None, Some(after)) => duration(&after)?,
        (Some(_), Some(again)) => return Err(syn::Error::new(again.span(), "the time is given twice")),
        (None, None) => return Err(arguments.error("must say after how long: `#[timeout(\"2s\")]`")),
    };
    let policy = quote!(::farol_resilience::Timeout);
    Ok((policy.clone(), quote!(#policy::new(#name, #after))))
}
