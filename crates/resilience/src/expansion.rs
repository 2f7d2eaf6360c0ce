//! What the attribute macros write into a program. Not for anybody else.

/// What is in a `Result`, under whatever alias it goes.
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
