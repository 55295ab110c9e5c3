//! How a heavy call runs: outside the interpreter, watched for Ctrl-C, its errors mapped.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use momos_core::{Error, ErrorKind, Monitor};
use pyo3::exceptions::{PyKeyboardInterrupt, PyMemoryError};
use pyo3::prelude::*;
use rayon::ThreadPool;

mod errors {
    pyo3::import_exception!(momos_rs.errors, CorruptionError);
    pyo3::import_exception!(momos_rs.errors, InsufficientDataError);
    pyo3::import_exception!(momos_rs.errors, InvalidArgumentError);
    pyo3::import_exception!(momos_rs.errors, MomosError);
    pyo3::import_exception!(momos_rs.errors, UnsupportedVersionError);
}

/// How often a running computation's watcher looks for signals and reports progress.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Pools that are kept; beyond that, those asked for longest ago end with their work.
const POOLS_KEPT: usize = 4;

/// The core's error as the Python exception of the same kind.
pub fn to_python_error(error: Error) -> PyErr {
    let message = error.message().to_owned();
    match error.kind() {
        ErrorKind::Corruption => errors::CorruptionError::new_err(message),
        ErrorKind::InsufficientData => errors::InsufficientDataError::new_err(message),
        ErrorKind::UnsupportedVersion => errors::UnsupportedVersionError::new_err(message),
        ErrorKind::InvalidArgument => errors::InvalidArgumentError::new_err(message),
        ErrorKind::Interrupted => PyKeyboardInterrupt::new_err(message),
        ErrorKind::OutOfMemory => PyMemoryError::new_err(message),
        _ => errors::MomosError::new_err(message),
    }
}

/// A caller's mistake that only the binding can see.
pub fn invalid_argument(message: impl Into<String>) -> PyErr {
    to_python_error(Error::invalid_argument(message))
}

/// The pool of that many threads, of all cores by default; the last [`POOLS_KEPT`] are kept.
///
/// Threads do not survive a fork, so a forked process gets pools of its own instead of waiting for
/// those of its parent.
fn pool_of(threads: Option<usize>) -> PyResult<Arc<ThreadPool>> {
    type Pools = Vec<((u32, Option<usize>), Arc<ThreadPool>)>;
    static POOLS: Mutex<Pools> = Mutex::new(Vec::new());
    if threads == Some(0) {
        return Err(invalid_argument("threads must be at least 1"));
    }
    let key = (std::process::id(), threads);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(place) = pools.iter().position(|(each, _)| *each == key) {
        pools[place..].rotate_left(1); // the one asked for last comes last
        return Ok(Arc::clone(&pools[pools.len() - 1].1));
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0)) // 0 is rayon's own choice
        .build()
        .map_err(|error| {
            let count = threads.map_or_else(|| "the".to_owned(), |count| count.to_string());
            invalid_argument(format!("cannot start {count} threads: {error}"))
        })?;
    let pool = Arc::new(pool);
    pools.push((key, Arc::clone(&pool)));
    if pools.len() > POOLS_KEPT {
        let (owner, oldest) = pools.remove(0);
        if owner.0 != key.0 {
            std::mem::forget(oldest); // its threads are those of the parent process
        }
    }
    Ok(pool)
}

/// Runs `work` on threads of its own without the interpreter lock; meanwhile this thread handles
/// signals and calls `progress(done)`. A signal handler or a callback that raises cancels the work, and its
/// exception is what the caller sees.
///
/// The work runs in a rayon pool of `threads` threads, by default of as many as there are cores.
pub fn run<T, F>(
    py: Python<'_>,
    threads: Option<usize>,
    progress: Option<&Bound<'_, PyAny>>,
    work: F,
) -> PyResult<T>
where
    T: Send,
    F: FnOnce(&Monitor) -> Result<T, Error> + Send,
{
    let pool = pool_of(threads)?;
    let monitor = Monitor::new();
    let progress = progress.map(|callback| callback.clone().unbind());
    let (result, interruption) = py.detach(|| {
        // This thread stays outside the pool, to watch it.
        pool.in_place_scope(|scope| {
            let (sender, receiver) = channel();
            let monitor = &monitor;
            scope.spawn(move |_| {
                let outcome =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(monitor)));
                // The receiver outlives this work, so sending cannot fail.
                let _ = sender.send(outcome);
            });
            let mut interruption = None;
            let outcome = loop {
                match receiver.recv_timeout(POLL_INTERVAL) {
                    Ok(outcome) => break outcome,
                    Err(RecvTimeoutError::Disconnected) => {
                        unreachable!("the worker always answers")
                    }
                    Err(RecvTimeoutError::Timeout) if interruption.is_none() => {
                        if let Err(error) =
                            Python::attach(|py| look(py, monitor, progress.as_ref()))
                        {
                            monitor.cancel();
                            interruption = Some(error);
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                }
            };
            (outcome, interruption)
        })
    });
    if let Some(error) = interruption {
        return Err(error);
    }
    match result {
        Ok(outcome) => outcome.map_err(to_python_error),
        Err(panic) => {
            // A panic would cross into Python as a BaseException that `except Exception` misses.
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("unknown");
            Err(errors::MomosError::new_err(format!(
                "internal error, please report it: {message}"
            )))
        }
    }
}

fn look(py: Python<'_>, monitor: &Monitor, progress: Option<&Py<PyAny>>) -> PyResult<()> {
    py.check_signals()?;
    if let Some(callback) = progress {
        callback.call1(py, (monitor.done(),))?;
    }
    Ok(())
}
