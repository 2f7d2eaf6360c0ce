//! The arguments of an attribute: `name = value`, a bare word, or (of a timeout) a bare value.

use std::time::Duration;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Ident, Lit, Result, Token};

/// One argument.
struct Argument {
    /// `None` for a bare value.
    name: Option<Ident>,
    value: Option<Expr>,
}

impl Parse for Argument {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.peek(Ident)
            && (input.peek2(Token![=])
                || input.peek2(Token![,])
                || input.cursor().token_tree().is_some_and(|(_, rest)| rest.eof()))
        {
            let name = input.parse()?;
            let value =
                if input.parse::<Option<Token![=]>>()?.is_some() { Some(input.parse()?) } else { None };
            return Ok(Self { name: Some(name), value });
        }
        Ok(Self { name: None, value: Some(input.parse()?) })
    }
}

/// The arguments of one attribute. Each is taken out by whoever knows it; what is left over is an error.
pub(crate) struct Arguments {
    attribute: &'static str,
    /// Where to point when something is missing.
    span: Span,
    rest: Vec<Argument>,
    known: Vec<&'static str>,
}

impl Arguments {
    pub(crate) fn parse(attribute: &'static str, span: Span, tokens: TokenStream) -> Result<Self> {
        let list = syn::parse::Parser::parse2(Punctuated::<Argument, Token![,]>::parse_terminated, tokens)?;
        let rest: Vec<Argument> = list.into_iter().collect();
        for (index, argument) in rest.iter().enumerate() {
            let Some(name) = &argument.name else { continue };
            if rest.iter().take(index).any(|earlier| earlier.name.as_ref() == Some(name)) {
                return Err(Error::new(name.span(), format!("`{name}` is given twice")));
            }
        }
        Ok(Self { attribute, span, rest, known: Vec::new() })
    }

    /// An error about the attribute as a whole.
    pub(crate) fn error(&self, message: &str) -> Error {
        Error::new(self.span, format!("#[{}] {message}", self.attribute))
    }

    fn take(&mut self, name: &'static str) -> Option<Argument> {
        self.known.push(name);
        let index = self
            .rest
            .iter()
            .position(|argument| argument.name.as_ref().is_some_and(|known| known == name))?;
        Some(self.rest.remove(index))
    }

    /// Whether a word without a value is there.
    pub(crate) fn word(&mut self, name: &'static str) -> Result<bool> {
        match self.take(name) {
            None => Ok(false),
            Some(Argument { value: Some(value), .. }) => {
                Err(Error::new(value.span(), format!("`{name}` takes no value")))
            }
            Some(_) => Ok(true),
        }
    }

    /// The value of an argument.
    pub(crate) fn value(&mut self, name: &'static str) -> Result<Option<Expr>> {
        match self.take(name) {
            None => Ok(None),
            Some(Argument { value: Some(value), .. }) => Ok(Some(value)),
            Some(Argument { name: word, .. }) => {
                let span = word.map_or(self.span, |word| word.span());
                Err(Error::new(span, format!("`{name}` needs a value: `{name} = …`")))
            }
        }
    }

    /// The value of an argument that goes by two names.
    pub(crate) fn value_of(&mut self, name: &'static str, other: &'static str) -> Result<Option<Expr>> {
        match (self.value(name)?, self.value(other)?) {
            (Some(_), Some(value)) => {
                Err(Error::new(value.span(), format!("`{other}` is another name of `{name}`")))
            }
            (one, other) => Ok(one.or(other)),
        }
    }

    /// The value without a name, if there is one.
    pub(crate) fn bare_value(&mut self) -> Option<Expr> {
        let index = self.rest.iter().position(|argument| argument.name.is_none())?;
        self.rest.remove(index).value
    }

    /// Fails if anything stands beside a policy that is set up elsewhere.
    pub(crate) fn finish_given(self) -> Result<()> {
        let Some(Argument { name, value }) = self.rest.into_iter().next() else { return Ok(()) };
        let span = name.map(|name| name.span()).or(value.map(|value| value.span())).unwrap_or(self.span);
        Err(Error::new(span, "no other argument goes with `policy`: that one is set up where it is made"))
    }

    /// Fails if an argument is left that nobody knew.
    pub(crate) fn finish(self) -> Result<()> {
        let Some(unknown) = self.rest.into_iter().next() else { return Ok(()) };
        let known = self.known.join("`, `");
        Err(match (unknown.name, unknown.value) {
            (Some(name), _) => Error::new(
                name.span(),
                format!("#[{}] has no argument `{name}`; it has `{known}`", self.attribute),
            ),
            (None, Some(value)) => {
                Error::new(value.span(), format!("an argument is `name = value`; there are `{known}`"))
            }
            (None, None) => Error::new(self.span, "an argument is `name = value`"),
        })
    }
}

/// An expression of type `Duration`: whole seconds, text with a unit, or what the caller wrote.
pub(crate) fn duration(value: &Expr) -> Result<TokenStream> {
    let duration = match value {
        Expr::Lit(ExprLit { lit: Lit::Int(seconds), .. }) => Duration::from_secs(seconds.base10_parse()?),
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
            parse_duration(&text.value()).ok_or_else(|| not_a_duration(text.span()))?
        }
        Expr::Lit(other) => return Err(not_a_duration(other.span())),
        other => return Ok(quote!(#other)),
    };
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    Ok(quote_spanned!(value.span()=> ::core::time::Duration::new(#seconds, #nanos)))
}

fn not_a_duration(span: Span) -> Error {
    Error::new(
        span,
        "a duration is whole seconds (`60`), text (`\"100ms\"`, `\"1.5s\"`, `\"2m\"`, `\"1h\"`), or a `Duration`",
    )
}

fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit() && character != '.')?;
    let (number, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

/// A whole number of the type that its place wants; 0 is an error, because it makes no sense anywhere.
pub(crate) fn positive(value: &Expr) -> Result<TokenStream> {
    if let Expr::Lit(ExprLit { lit, .. }) = value {
        match lit {
            Lit::Int(number) if number.base10_parse::<u64>()? > 0 => {}
            Lit::Int(number) => return Err(Error::new(number.span(), "must be at least 1")),
            other => return Err(Error::new(other.span(), "must be a whole number")),
        }
    }
    Ok(quote!(#value))
}

/// A duration that isn't zero, as far as that can be seen.
pub(crate) fn some_time(value: &Expr) -> Result<TokenStream> {
    let zero = match value {
        Expr::Lit(ExprLit { lit: Lit::Int(seconds), .. }) => seconds.base10_parse::<u64>()? == 0,
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
            parse_duration(&text.value()).is_some_and(|duration| duration.is_zero())
        }
        _ => false,
    };
    if zero { Err(Error::new(value.span(), "must be longer than nothing")) } else { duration(value) }
}

/// A share of calls, more than 0 and at most 1, as far as that can be seen.
pub(crate) fn share(value: &Expr) -> Result<TokenStream> {
    let written = match value {
        Expr::Lit(ExprLit { lit: Lit::Int(whole), .. }) => Some(whole.base10_parse::<f64>()?),
        Expr::Lit(ExprLit { lit: Lit::Float(number), .. }) => Some(number.base10_parse::<f64>()?),
        _ => None,
    };
    if written.is_some_and(|share| !(share > 0.0 && share <= 1.0)) {
        return Err(Error::new(value.span(), "must be more than 0 and at most 1: half of the calls is 0.5"));
    }
    number(value)
}

/// The whole number that is written there, if one is.
pub(crate) fn written_number(value: &Expr) -> Option<u64> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => number.base10_parse().ok(),
        _ => None,
    }
}

/// A number with or without a point, as `f64`.
pub(crate) fn number(value: &Expr) -> Result<TokenStream> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(whole), .. }) => {
            let number: f64 = whole.base10_parse()?;
            Ok(quote_spanned!(whole.span()=> #number))
        }
        Expr::Lit(ExprLit { lit: Lit::Float(_), .. }) => Ok(quote!(#value)),
        Expr::Lit(other) => Err(Error::new(other.span(), "must be a number")),
        other => Ok(quote!(#other)),
    }
}

/// One of these words, written as text.
pub(crate) fn one_of<'a>(value: &Expr, words: &[(&str, &'a str)]) -> Result<&'a str> {
    let found = match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => {
            let text = text.value();
            words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning)
        }
        _ => None,
    };
    found.ok_or_else(|| {
        let words: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        Error::new(value.span(), format!("must be one of {}", words.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let read = |text| parse_duration(text).map(|duration| duration.as_nanos());
        assert_eq!(read("100ms"), Some(100_000_000));
        assert_eq!(read("1.5s"), Some(1_500_000_000));
        assert_eq!(read("2 m"), Some(120_000_000_000));
        assert_eq!(read("3us"), Some(3_000));
        for text in ["", "5", "s", "1.2.3s", "5 parsecs", "-1s", "99999999999999999999h"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
