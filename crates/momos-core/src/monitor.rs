//! Watching long work from another thread: how far it is, and asking it to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Shared between a computation and the code that watches it.
///
/// Heavy functions take a `&Monitor`, report finished work with [`advance`](Self::advance) and
/// call [`check`](Self::check) at least every few milliseconds, so that a cancelled computation
/// ends promptly with [`ErrorKind::Interrupted`].
#[derive(Debug, Default)]
pub struct Monitor {
    cancelled: AtomicBool,
    done: AtomicU64,
}

impl Monitor {
    /// A monitor of work that has not started.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the computation to stop at its next check.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Adds finished units of work; what a unit is, the function that takes the monitor says.
    pub fn advance(&self, units: u64) {
        self.done.fetch_add(units, Ordering::Relaxed);
    }

    /// Units of work finished so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Ends the computation if it was cancelled.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] after [`cancel`](Self::cancel).
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "interrupted"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelling_is_seen_by_the_next_check() {
        let monitor = Monitor::new();
        monitor.advance(3);
        assert_eq!(monitor.done(), 3);
        assert!(monitor.check().is_ok());
        monitor.cancel();
        assert_eq!(monitor.check().unwrap_err().kind(), ErrorKind::Interrupted);
    }
}
