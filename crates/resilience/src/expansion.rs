//! What the attribute macros write into a program. Not for anybody else.

/// What is in a `Result`, under whatever alias it goes.
#[diagnostic::on_unimplemented(
    message = "a function under a policy must return a `Result`, not `{Self}`",
    note = "policies judge a call by its result",
    note = "under `#[async_trait]` a method returns a boxed future; call the policy inside it, or write the trait with `async fn`"
)]
pub trait ResultType {
    /// What a success gives.
    type Value;
    /// What a failure gives.
    type Error;
}

impl<T, E> ResultType for Result<T, E> {
    type Value = T;
    type Error = E;
}
