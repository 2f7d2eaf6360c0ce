//! A run that panics counts as one that failed: it is logged, and started again like any other failed run.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use farol_bus::BusError;
use futures_util::FutureExt;

/// Runs `run` to its end; a panic becomes an error.
pub(crate) async fn caught(run: impl Future<Output = Result<(), BusError>>) -> Result<(), BusError> {
    // Whatever the run held is dropped with it, and the next run starts from what was committed.
    AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|panic| {
        Err(BusError::InvalidState(format!("a defect in Farol: {}", message(panic.as_ref()))))
    })
}

/// Runs `run` to its end; nothing if it panicked, which is logged.
pub(crate) async fn unless_it_panics<T>(run: impl Future<Output = T>) -> Option<T> {
    let ended = AssertUnwindSafe(run).catch_unwind().await;
    ended.map_err(|panic| tracing::error!("a defect in Farol: {}", message(panic.as_ref()))).ok()
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panicked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_becomes_an_error_that_carries_its_message() {
        let error = caught(async { panic!("value {}", 7) }).await.unwrap_err();
        assert!(error.to_string().contains("value 7"), "{error}");
        assert!(caught(async { Ok(()) }).await.is_ok());
    }
}
