//! Work cut into numbered tasks, on the threads of the current rayon pool.
//!
//! A single task, or a pool of a single thread, never leaves the calling thread: waking another
//! one costs more than small tensors take.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::Result;

/// The results of tasks `0..count`, in order.
pub fn map<T: Send>(
    count: usize,
    task: impl Fn(usize) -> Result<T> + Send + Sync,
) -> Result<Vec<T>> {
    if count <= 1 || rayon::current_num_threads() == 1 {
        return (0..count).map(task).collect();
    }
    (0..count).into_par_iter().map(task).collect()
}

/// Tasks `0..count` taken up into accumulators, one to a thread, which are then finished (still on
/// that thread) and joined.
///
/// Which tasks meet in which accumulator is left to chance, so the result must not depend on it:
/// fine for exact counts, not for floating-point sums.
pub fn fold<A: Send>(
    count: usize,
    new: impl Fn() -> A + Sync,
    task: impl Fn(&mut A, usize) -> Result<()> + Sync,
    finish: impl Fn(&mut A) + Sync,
    join: impl Fn(&mut A, A),
) -> Result<A> {
    let threads = rayon::current_num_threads().min(count);
    if threads <= 1 {
        let mut accumulator = new();
        (0..count).try_for_each(|index| task(&mut accumulator, index))?;
        finish(&mut accumulator);
        return Ok(accumulator);
    }
    let next = AtomicUsize::new(0);
    let accumulators = (0..threads)
        .into_par_iter()
        .map(|_| {
            let mut accumulator = new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    finish(&mut accumulator);
                    return Ok(accumulator);
                }
                task(&mut accumulator, index)?;
            }
        })
        .collect::<Result<Vec<A>>>()?;
    let mut accumulators = accumulators.into_iter();
    let mut total = accumulators.next().expect("two threads at least");
    for each in accumulators {
        join(&mut total, each);
    }
    Ok(total)
}

/// Adds counts to others.
pub fn add<T, U: Copy + Into<T>>(counts: &mut [T], more: &[U])
where
    T: std::ops::AddAssign,
{
    for (count, &more) in counts.iter_mut().zip(more) {
        *count += more.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    fn on<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(work)
    }

    #[test]
    fn every_task_is_done_once_on_any_number_of_threads() {
        for threads in [1, 2, 5] {
            for count in [0, 1, 3, 100] {
                let numbers = on(threads, || map(count, Ok)).unwrap();
                assert_eq!(numbers, (0..count).collect::<Vec<_>>());
                let mut seen = on(threads, || {
                    fold(
                        count,
                        Vec::new,
                        |seen, index| {
                            seen.push(index);
                            Ok(())
                        },
                        |seen| seen.push(count),
                        |left, right| left.extend(right),
                    )
                })
                .unwrap();
                seen.sort_unstable();
                // Every accumulator was finished once.
                let finished = seen.split_off(numbers.len());
                assert!((1..=threads).contains(&finished.len()));
                assert!(finished.iter().all(|&mark| mark == count));
                assert_eq!(seen, numbers);
            }
        }
    }

    #[test]
    fn an_error_is_handed_on() {
        let fail = |index| match index {
            7 => Err(Error::invalid_argument("seven")),
            _ => Ok(()),
        };
        for threads in [1, 3] {
            assert!(on(threads, || map(9, fail)).is_err());
            let folded = on(threads, || {
                fold(9, || (), |(), index| fail(index), |()| (), |(), ()| ())
            });
            assert!(folded.is_err());
        }
    }
}
